"""HAWQ: the largest Hessian eigenvalue of each layer, and the order to fine-tune layers in."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.sensitivity.batches import MEMORY, Batch
from quant_core.sensitivity.curvature.hessian import batch_stderr, hessian_product, sweep_progress
from quant_core.sensitivity.curvature.lanczos import Lanczos
from quant_core.sensitivity.curvature.probes import normal, probe_generator
from quant_core.sensitivity.curvature.traces import Floats
from quant_core.sensitivity.objective import Objective
from quant_core.spec.progress import Tell, tell_nobody

_FEWEST, _MOST = 6, 32
"""Bounds on how many vectors a Krylov space holds before it starts again from its best."""


@dataclass(frozen=True, eq=False)
class EigenvalueEstimate:
    """Largest eigenvalue of the Hessian of the mean loss in each layer's weight.

    Attributes:
        eigenvalue: Algebraically largest eigenvalue of H_i; NaN where a layer gave NaN or infinity.
        residual: Norm of `H_i x - eigenvalue * x` for the unit vector x found: an eigenvalue of these samples' H_i lies
            within it.
        stderr: Standard error over samples, of `x^T H_i x` with x fixed; NaN for a single batch.
        products: Products with a diagonal block, over all layers.
        samples: Number of samples.
        stopped: Why the iteration ended.
    """

    eigenvalue: Floats
    residual: Floats
    stderr: Floats
    products: int
    samples: int
    stopped: str


def hawq(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    seed: int,
    tolerance: float = 1e-3,
    max_iterations: int = 64,
    memory: int = MEMORY,
    seconds: float | None = None,
    on_progress: Tell = tell_nobody,
) -> EigenvalueEstimate:
    """Find the largest eigenvalue of every layer's diagonal block of the Hessian by Lanczos, all layers in step.

    One iteration is one sweep over the batches: forward and backward once, then one more backward pass for each layer
    that has not converged (HAWQ, arXiv:1905.03696, there with power iteration). The vectors kept are as
    many times the weights' size as fit into `memory`, 6 to 32; then each layer starts again from its best vector.

    Args:
        program: The network.
        layers: The layers, in the order of the result.
        objective: The loss.
        batches: The samples; a few large batches are best.
        seed: Seed of the first vectors.
        tolerance: Wanted residual, relative to the largest eigenvalue in magnitude.
        max_iterations: Most products for each layer.
        memory: Bytes for the vectors.
        seconds: No iteration begins after these; what has not converged by then keeps its residual.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.

    Returns:
        Eigenvalues with residuals and standard errors.
    """
    names = [layer.weight for layer in layers]
    size = sum(program.weights[name].nbytes for name in names)
    search = _Search(
        {
            name: Lanczos(normal(program.weights[name], probe_generator(seed, i)))
            for i, name in enumerate(names)
        },
        held=min(_MOST, max(_FEWEST, memory // max(size, 1))),
        tolerance=tolerance,
    )
    spaces, vectors = search.spaces, search.vectors
    products = 0
    end = math.inf if seconds is None else time.monotonic() + seconds
    for iteration in range(max_iterations):
        results, _ = hessian_product(
            program,
            objective,
            batches,
            {name: space.vector for name, space in spaces.items()},
            blocks=True,
            on_batch=sweep_progress(
                on_progress, iteration, max_iterations, len(batches), f"{len(spaces)} layers left"
            ),
        )
        products += len(spaces)
        last = iteration == max_iterations - 1 or time.monotonic() >= end
        for name, product in results.items():
            search.extend(name, product, last=last)
        if last or not spaces:
            break
    limit = "time limit" if time.monotonic() >= end else "iteration limit"
    stopped = f"{limit}; {len(spaces)} layers not converged" if spaces else "every layer converged"
    stderr = dict.fromkeys(names, np.nan)
    if vectors:
        _, forms = hessian_product(program, objective, batches, vectors, blocks=True)
        stderr.update(zip(vectors, batch_stderr(forms, [batch.size for batch in batches]), strict=True))
    on_progress(1.0, stopped)
    return EigenvalueEstimate(
        eigenvalue=np.array([search.found[name][0] for name in names]),
        residual=np.array([search.found[name][1] for name in names]),
        stderr=np.array([stderr[name] for name in names]),
        products=products + len(vectors),
        samples=sum(batch.size for batch in batches),
        stopped=stopped,
    )


@dataclass(eq=False)
class _Search:
    """The layers' Krylov spaces, and what they have given so far.

    Attributes:
        spaces: Weight name -> its space, of layers that are not done.
        held: Vectors that a space holds before it starts again from its best.
        tolerance: Residual, relative to the largest eigenvalue in magnitude, at which a layer is done.
        found: Weight name -> eigenvalue and residual.
        vectors: Weight name -> the unit vector that has it, from where it was last looked at.
    """

    spaces: dict[str, Lanczos]
    held: int
    tolerance: float
    found: dict[str, tuple[float, float]] = field(default_factory=dict)
    vectors: dict[str, torch.Tensor] = field(default_factory=dict)

    def extend(self, name: str, product: torch.Tensor, *, last: bool) -> None:
        """Add a product with a layer's block; the layer leaves where it is done, or gave NaN or infinity."""
        space = self.spaces[name]
        space.extend(product)
        if not space.finite:
            del self.spaces[name]
            self.found[name] = (np.nan, np.nan)
            self.vectors.pop(name, None)
            return
        self.found[name] = space.top()
        done = space.exhausted or self.found[name][1] <= self.tolerance * space.largest
        if done or last or len(space.basis) > self.held:
            self.vectors[name] = space.top_vector()
            self.spaces[name] = Lanczos(self.vectors[name])
        if done:
            del self.spaces[name]


def block_order(
    estimate: EigenvalueEstimate, layers: Sequence[Layer], squared_norms: Sequence[float] | None = None
) -> tuple[int, ...]:
    """Order layers as HAWQ does.

    Without `squared_norms` by `S_i = lambda_i / n_i`: who deserves bits first. With them by
    `Omega_i = lambda_i * ||Q(W_i) - W_i||^2`: who is quantized and fine-tuned first, while the others are still float
    (HAWQ, arXiv:1905.03696).

    Args:
        estimate: The eigenvalues.
        layers: The layers, in the same order.
        squared_norms: `||Q(W_i) - W_i||^2` at the bits chosen, or None.

    Returns:
        Indices of the layers, the most sensitive first; layers without an eigenvalue last, equal ones in graph order.
    """
    factors = [1 / layer.parameters for layer in layers] if squared_norms is None else squared_norms
    scores = estimate.eigenvalue * np.asarray(factors)
    return tuple(int(i) for i in np.argsort(-scores, kind="stable"))
