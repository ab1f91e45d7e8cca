"""Hutch++: traces whose largest part is taken exactly on a small subspace and the rest by random signs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch

from quant_core.errors import SpecError
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.chance import rademacher
from quant_core.sensitivity.batches import MEMORY, Batch
from quant_core.sensitivity.curvature.hessian import batch_stderr, hessian_product, sweep_progress
from quant_core.sensitivity.curvature.probes import probe_generator
from quant_core.sensitivity.curvature.traces import Floats, TraceEstimate
from quant_core.sensitivity.objective import Objective
from quant_core.spec.progress import Tell, tell_nobody

_SPENT = 1e-5
"""A sketched direction that keeps less of its length than this beside the others is rounding."""
_FEWEST = 5
"""Products: one for the subspace and one with it, and three for the rest, whose spread tells its error."""

Vectors = dict[str, torch.Tensor]


def hutch_plus_plus(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    seed: int,
    products: int = 30,
    blocks: bool = True,
    memory: int = MEMORY,
    seconds: float | None = None,
    on_progress: Tell = tell_nobody,
) -> TraceEstimate:
    """Estimate `Tr(H_i)` with a third of the products spent on a subspace that holds the large eigenvalues.

    With S random signs, Q an orthonormal basis of `H S` and g fresh signs (Meyer, Musco, Musco and Woodruff, 2021,
    arXiv:2010.09649, algorithm 1)::

        Tr(H) = Tr(Q^T H Q) + Tr((I - Q Q^T) H (I - Q Q^T)),    the second by Hutchinson

    Every product is with the mean loss over all batches. With `blocks` each layer has its own Q and its own products,
    and one product costs a forward, a backward and one more backward pass for each layer; otherwise Q lies in all
    weights together and `Tr(H_i) = sum_q q_i . (H q)_i + E[g_i . (H (I - Q Q^T) g)_i]`, where blocks between layers
    add variance but a product costs one Hessian-vector product in all.

    Args:
        program: The network.
        layers: The layers, in the order of the result.
        objective: The loss.
        batches: The samples; a few large batches are best.
        seed: Seed of the signs.
        products: Products for each layer; a third sketch, a third go to Q, a third to the rest.
        blocks: Whether each layer has its own products.
        memory: Bytes for Q; what does not fit goes to the rest, which stays unbiased.
        seconds: About how long it may take: the first product tells how many there are time for, 5 in any case.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.

    Returns:
        Traces. Standard errors hold the spread of the rest over signs and of everything over batches; that of a
        single batch is over signs alone.

    Raises:
        SpecError: If there are fewer than 5 products.
    """
    if products < _FEWEST:
        raise SpecError(
            f"Hutch++ needs {_FEWEST} products or more.", remedy="Ask for more.", where="products"
        )
    names = [layer.weight for layer in layers]
    weights = {name: program.weights[name] for name in names}
    size = sum(weight.nbytes for weight in weights.values())
    sweeps, start = 0, time.monotonic()

    def multiply(vectors: Vectors, against: Vectors | None = None) -> tuple[Vectors, Floats]:
        nonlocal sweeps
        tell = sweep_progress(on_progress, sweeps, products, len(batches), f"{len(vectors)} layers")
        sweeps += 1
        return hessian_product(
            program, objective, batches, vectors, blocks=blocks, against=against, on_batch=tell
        )

    sketch = [multiply(_signs(weights, seed, 0))[0]]
    if seconds is not None:
        products = min(products, max(_FEWEST, int(seconds / (time.monotonic() - start))))
    sketched = max(1, min((products - 2) // 3, memory // max(size, 1)))
    sketch += [multiply(_signs(weights, seed, k))[0] for k in range(1, sketched)]
    finite = [name for name in names if all(bool(torch.isfinite(y[name]).all()) for y in sketch)]
    groups = [[name] for name in finite] if blocks else [finite]
    basis = _orthonormal(sketch, groups)
    del sketch
    known = {name: weights[name] for name in finite}
    exact, rest = [multiply(q)[1] for q in basis] if finite else [], []
    for k in range(products - 2 * sketched if finite else 0):
        signs = _signs(known, seed, sketched + k)
        projected = {name: sign.clone() for name, sign in signs.items()}
        for group in groups:
            _project(projected, basis, group)
        rest.append(multiply(projected, projected if blocks else signs)[1])
    columns = [names.index(name) for name in finite]
    trace, stderr, share_stderr = (np.full(len(names), np.nan) for _ in range(3))
    if finite:
        sizes = [batch.size for batch in batches]
        trace[columns], stderr[columns], share_stderr[columns] = _summarise(
            np.array(exact), np.array(rest), sizes
        )
    return TraceEstimate(
        trace=trace,
        stderr=stderr,
        share_stderr=share_stderr,
        probes=sweeps,
        samples=sum(batch.size for batch in batches),
        stopped=f"{products} products, {sketched} of them for a subspace",
    )


def _signs(weights: Vectors, seed: int, number: int) -> Vectors:
    generator = probe_generator(seed, number)
    return {name: rademacher(weight, generator) for name, weight in weights.items()}


def _orthonormal(sketch: Sequence[Vectors], groups: Sequence[Sequence[str]]) -> list[Vectors]:
    # Gram and Schmidt, in each group for itself; what lies in the span already becomes zero.
    basis: list[Vectors] = []
    for product in sketch:
        q = {name: product[name] for group in groups for name in group}
        for group in groups:
            length = _norm(q, group)
            _project(q, basis, group)
            left = _norm(q, group)
            for name in group:
                q[name].mul_(1 / left if left > _SPENT * length else 0.0)
        basis.append(q)
    return basis


def _project(vector: Vectors, basis: Sequence[Vectors], group: Sequence[str]) -> None:
    # Takes what lies in the basis away, in place, twice for the sake of rounding.
    for q in (*basis, *basis):
        share = sum(float((vector[name] * q[name]).sum(dtype=torch.float64)) for name in group)
        for name in group:
            vector[name].sub_(q[name], alpha=share)


def _norm(vector: Vectors, group: Sequence[str]) -> float:
    return math.sqrt(sum(float(vector[name].double().square().sum()) for name in group))


def _summarise(exact: Floats, rest: Floats, sizes: Sequence[int]) -> tuple[Floats, Floats, Floats]:
    # Both [products, batches, layers] -> trace, stderr, share_stderr, [layers] each.
    weight = np.asarray(sizes) / sum(sizes)
    each = exact.sum(axis=0) + rest.mean(axis=0)
    trace = weight @ each
    total = trace.sum()
    share = trace / total if total != 0 else np.zeros_like(trace)

    def spread(each: Floats, rest: Floats) -> Floats:
        of_samples = np.nan_to_num(batch_stderr(each, sizes) ** 2)
        of_signs = np.var(np.tensordot(weight, rest, axes=(0, 1)), axis=0, ddof=1) / len(rest)
        return np.asarray(np.sqrt(of_samples + of_signs))

    off = [values - share * values.sum(axis=-1, keepdims=True) for values in (each, rest)]
    share_stderr = spread(*off) / abs(total) if total != 0 else np.zeros_like(trace)
    return trace, spread(each, rest), share_stderr
