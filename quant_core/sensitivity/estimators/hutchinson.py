"""HAWQ-V2: Hessian traces per layer by Hutchinson's estimator, one Hessian-vector product for all layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.chance import rademacher
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.derivatives import bend, forward, inner, leaves, losses, slopes
from quant_core.sensitivity.curvature.hessian import block_products
from quant_core.sensitivity.curvature.probes import probe_generator
from quant_core.sensitivity.curvature.traces import Floats, TraceEstimate, average_traces
from quant_core.sensitivity.objective import Objective
from quant_core.sensitivity.running.units import RunUnits, in_turn
from quant_core.spec.progress import Tell


def hawq_v2(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    seed: int,
    tolerance: float = 0.05,
    max_probes: int = 2000,
    on_progress: Tell | None = None,
    run: RunUnits = in_turn,
) -> TraceEstimate:
    """Estimate `Tr(H_i)` by joint random signs over all weights.

    With v drawn over all weights, `E[v_i . (H v)_i] = Tr(H_i)`; the blocks between layers have mean zero and only add
    variance (Hutchinson, 1990; HAWQ-V2, arXiv:1911.03852, section 3.3). A product that is not finite is taken again
    layer by layer, so that only the layers whose own block is not finite get NaN.

    Args:
        program: The network.
        layers: The layers, in the order of the result.
        objective: The loss.
        batches: The samples; each probe takes the next batch.
        seed: Seed of the probes.
        tolerance: Wanted relative standard error of each layer's share.
        max_probes: Most Hessian-vector products.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.
        run: Works the probes off.

    Returns:
        Traces with standard errors.
    """
    weights = leaves(program, layers)
    variables = list(weights.values())

    def gradients(index: int) -> tuple[torch.Tensor, ...]:
        rows = forward(program, objective, batches[index], weights)
        return slopes(losses(objective, rows, batches[index]).mean(), variables)

    def probe(index: int, number: int) -> Floats:
        generator = probe_generator(seed, number)
        signs = [rademacher(variable, generator) for variable in variables]
        joint = inner(signs, bend(gradients(index), variables, signs))
        if np.isfinite(joint).all():
            return joint
        return inner(signs, list(block_products(gradients(index), variables, signs)))

    sizes = [batch.size for batch in batches]
    return average_traces(
        probe, sizes, tolerance=tolerance, max_probes=max_probes, on_progress=on_progress, run=run
    )
