"""Gauss-Newton-Bartlett: squared gradients of labels that the model itself draws; the trace and the diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch

from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.derivatives import forward, inner, leaves, random_gradient
from quant_core.sensitivity.curvature.probes import probe_generator, sampled_score
from quant_core.sensitivity.curvature.traces import Floats, Probing, TraceEstimate, average_traces
from quant_core.sensitivity.objective import Objective
from quant_core.spec.progress import Tell, tell_nobody


def gnb(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    seed: int,
    **probing: Unpack[Probing],
) -> TraceEstimate:
    """Estimate `Tr(G_i)` from labels drawn from the model's own output distribution, one backward pass a probe.

    With g the gradient of the mean loss of a batch of B samples against drawn labels, `E[B * g . g] = Tr(G)`: the
    scores of different samples have mean zero and are independent (Bartlett's identities; Sophia, arXiv:2305.14342,
    algorithm 2). For squared error the targets are the output plus normal noise of variance 1. Signs, as in
    `gauss_newton`, have the same mean and a smaller spread.

    Args:
        program: The network.
        layers: The layers, in the order of the result.
        objective: The loss; its labels are not used.
        batches: The samples.
        seed: Seed of the labels.
        **probing: How precise the shares are to be, and with how many backward passes at most.

    Returns:
        Traces with standard errors.
    """
    weights = leaves(program, layers)

    def probe(index: int, number: int) -> Floats:
        gradients = _gradients(program, objective, batches[index], weights, seed, number)
        return inner(gradients, gradients)

    return average_traces(probe, [batch.size for batch in batches], **probing)


def gnb_diagonal(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    seed: int,
    sweeps: int = 1,
    on_progress: Tell = tell_nobody,
) -> dict[str, torch.Tensor]:
    """Estimate the diagonal of the Gauss-Newton matrix, `E[B * g * g]` element by element.

    Args:
        program: The network.
        layers: The layers.
        objective: The loss; its labels are not used.
        batches: The samples.
        seed: Seed of the labels.
        sweeps: Backward passes for each batch, each with labels of its own.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.

    Returns:
        Weight name -> diagonal of the mean loss over all samples, in the weight's shape.
    """
    weights = leaves(program, layers)
    total = sweeps * sum(batch.size for batch in batches)
    diagonal = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
    passes = sweeps * len(batches)
    for number in range(passes):
        batch = batches[number % len(batches)]
        gradients = _gradients(program, objective, batch, weights, seed, number)
        for name, gradient in zip(weights, gradients, strict=True):
            diagonal[name].add_(gradient.square(), alpha=batch.size / total)
        on_progress((number + 1) / passes, f"pass {number + 1}")
    return diagonal


def _gradients(
    program: Program,
    objective: Objective,
    batch: Batch,
    weights: dict[str, torch.Tensor],
    seed: int,
    number: int,
) -> tuple[torch.Tensor, ...]:
    rows = forward(program, objective, batch, weights)
    generator = probe_generator(seed, number)
    return random_gradient(objective, rows, batch, list(weights.values()), sampled_score, generator)
