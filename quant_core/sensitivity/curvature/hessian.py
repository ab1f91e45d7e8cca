"""Products with the Hessian of the mean loss over all batches: of the whole net, or of its diagonal blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from quant_core.executor import Program
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.derivatives import bend, forward, inner, losses, slopes
from quant_core.sensitivity.curvature.traces import Floats
from quant_core.sensitivity.objective import Objective
from quant_core.spec.progress import Tell

Vectors = Mapping[str, torch.Tensor]


def hessian_product(
    program: Program,
    objective: Objective,
    batches: Sequence[Batch],
    vectors: Vectors,
    *,
    blocks: bool,
    against: Vectors | None = None,
    on_batch: Callable[[], None] | None = None,
) -> tuple[dict[str, torch.Tensor], Floats]:
    """Multiply the Hessian H of the mean loss over all samples by vectors, in one sweep over the batches.

    Each batch is run forward and backward once. Then `H v` takes one more backward pass for the joint vector v, and
    one for each layer for the diagonal blocks `H_ii v_i`.

    Args:
        program: The network.
        objective: The loss.
        batches: The samples; the graph of one batch is held at a time.
        vectors: Weight name -> vector of its shape. H is taken in these weights.
        blocks: Whether to multiply each v_i by its own diagonal block instead of v by H.
        against: The u of the forms `u_i . (H v)_i`; the vectors themselves if None.
        on_batch: Called after each batch; an exception from it ends the work.

    Returns:
        Weight name -> product, and the forms of every batch's own Hessian, [batches, weights].
    """
    names = list(vectors)
    weights = {name: program.weights[name].detach().requires_grad_() for name in names}
    direction = [vectors[name] for name in names]
    left = direction if against is None else [against[name] for name in names]
    total = sum(batch.size for batch in batches)
    sums = [torch.zeros_like(vector) for vector in direction]
    forms = np.empty((len(batches), len(names)))
    for index, batch in enumerate(batches):
        loss = losses(objective, forward(program, objective, batch, weights), batch).mean()
        variables = list(weights.values())
        gradients = slopes(loss, variables)
        if blocks:
            products: Iterable[torch.Tensor] = block_products(gradients, variables, direction)
        else:
            products = bend(gradients, variables, direction)
        for k, product in enumerate(products):
            sums[k].add_(product, alpha=batch.size / total)
            forms[index, k] = inner([left[k]], [product])[0]
        if on_batch is not None:
            on_batch()
    return dict(zip(names, sums, strict=True)), forms


def batch_stderr(values: Floats, sizes: Sequence[int]) -> Floats:
    """Give the standard error of the mean over samples from the spread between batches.

    Args:
        values: Mean over each batch, [batches, ...].
        sizes: Samples in each batch.

    Returns:
        Standard errors, shaped as one batch's values; NaN for a single batch.
    """
    count = len(sizes)
    if count < 2:
        return np.full(values.shape[1:], np.nan)
    weight = np.asarray(sizes, dtype=np.float64) / sum(sizes)
    deviation = values - np.tensordot(weight, values, axes=1)
    return np.asarray(np.sqrt(count / (count - 1) * np.tensordot(weight**2, deviation**2, axes=1)))


def sweep_progress(
    on_progress: Tell, sweep: int, sweeps: int, batches: int, message: str
) -> Callable[[], None]:
    """Count the batches of one sweep among several as progress.

    Args:
        on_progress: Called with the fraction done and the message.
        sweep: Number of the sweep, from 0.
        sweeps: How many there will be at most.
        batches: Batches in each.
        message: What is going on.

    Returns:
        To be called after each batch.
    """
    done = sweep * batches

    def tell() -> None:
        nonlocal done
        done += 1
        on_progress(done / (sweeps * batches), f"sweep {sweep + 1}, {message}")

    return tell


def block_products(
    gradients: Sequence[torch.Tensor], variables: Sequence[torch.Tensor], direction: Sequence[torch.Tensor]
) -> Iterator[torch.Tensor]:
    """Multiply each layer's own block of the Hessian by its vector.

    Args:
        gradients: What `slopes` gave; their graph is gone after the last product.
        variables: The weights.
        direction: One vector for each.

    Yields:
        One product for each weight.
    """
    last = len(variables) - 1
    for k, (gradient, variable, vector) in enumerate(zip(gradients, variables, direction, strict=True)):
        yield bend([gradient], [variable], [vector], retain=k < last)[0]
