"""Gauss-Newton traces per layer from first-order gradients."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Unpack

import numpy as np
import torch

from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.derivatives import forward, inner, leaves, pull_back, random_gradient
from quant_core.sensitivity.curvature.probes import probe_generator, signed_root
from quant_core.sensitivity.curvature.traces import Floats, Probing, TraceEstimate, average_traces
from quant_core.sensitivity.objective import Objective
from quant_core.sensitivity.running.units import RunUnits, in_turn
from quant_core.spec.progress import Tell, tell_nobody


def gauss_newton(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    seed: int,
    **probing: Unpack[Probing],
) -> TraceEstimate:
    """Estimate `Tr(G_i)` with one plain backward pass a probe.

    For the mean loss over N samples `G = 1/N sum_n J_n^T H_n J_n`, with J_n the Jacobian of sample n's output in the
    weights and `H_n = S_n S_n^T` the loss's Hessian in that output. With independent signs r_n,
    `g = 1/sqrt(N) sum_n J_n^T S_n r_n` is a single vector-Jacobian product, and `E ||g_i||^2 = Tr(G_i)`: products of
    different samples have mean zero. At the float weights G is the Hessian of the divergence from the float model's
    own output; for ReLU networks its layer blocks are also those of the cross entropy (Schraudolph, 2002; Botev et
    al., 2017).

    Args:
        program: The network.
        layers: The layers, in the order of the result.
        objective: The loss.
        batches: The samples.
        seed: Seed of the probes.
        **probing: How precise the shares are to be, and with how many backward passes at most.

    Returns:
        Traces with standard errors.
    """
    weights = leaves(program, layers)
    variables = list(weights.values())

    def probe(index: int, number: int) -> Floats:
        rows = forward(program, objective, batches[index], weights)
        generator = probe_generator(seed, number)
        gradients = random_gradient(objective, rows, batches[index], variables, signed_root, generator)
        return inner(gradients, gradients)

    return average_traces(probe, [batch.size for batch in batches], **probing)


def gauss_newton_exact(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    on_progress: Tell = tell_nobody,
    run: RunUnits = in_turn,
) -> TraceEstimate:
    """Compute `Tr(G_i)` of every sample with one backward pass for each of its outputs, and average.

    `Tr(J^T S S^T J) = sum_c ||J^T S e_c||^2`. Cheaper than probes only for a handful of outputs and samples; give
    batches of one sample where the graph allows it.

    Args:
        program: The network.
        layers: The layers, in the order of the result.
        objective: The loss.
        batches: The samples.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.
        run: Works the batches off.

    Returns:
        Traces; the standard errors are over samples alone.
    """
    weights = leaves(program, layers)
    variables = list(weights.values())

    def traces(index: int, _: int) -> Floats:
        batch = batches[index]
        found = np.zeros((batch.size, len(layers)))
        rows = forward(program, objective, batch, weights)
        for term, row in zip(objective.terms, rows, strict=True):
            for sample, entry in np.ndindex(batch.size, row[0].numel()):
                unit = torch.zeros_like(row)
                unit[sample].view(-1)[entry] = 1
                gradients = pull_back([row], variables, [term.root(row.detach(), unit)], retain=True)
                found[sample] += inner(gradients, gradients)
        return found

    known: list[Floats] = []
    with closing(run(traces, ((index, 0) for index in range(len(batches))))) as results:
        for found in results:
            known.append(found)
            on_progress(len(known) / len(batches), f"{sum(map(len, known))} samples")
    table = np.concatenate(known)
    count = len(table)
    mean = table.mean(axis=0)
    deviation = table - mean
    residual = table - mean / mean.sum() * table.sum(axis=1, keepdims=True) if mean.sum() else deviation
    scale = 1 / (count * max(count - 1, 1))
    return TraceEstimate(
        trace=mean,
        stderr=np.sqrt((deviation**2).sum(axis=0) * scale),
        share_stderr=np.sqrt((residual**2).sum(axis=0) * scale) / (mean.sum() or 1.0),
        probes=0,
        samples=count,
        stopped="exact over outputs" if len(known) == len(batches) else "time limit; exact over outputs",
    )
