"""HAWQ-V2: Hessian traces per layer by Hutchinson's estimator, one Hessian-vector product for all layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np
import torch

from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.chance import rademacher
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.derivatives import bend, forward, inner, leaves, losses, slopes
from quant_core.sensitivity.curvature.hessian import block_products
from quant_core.sensitivity.curvature.probes import probe_generator
from quant_core.sensitivity.curvature.traces import Floats, Probing, TraceEstimate, average_traces
from quant_core.sensitivity.objective import Objective


def hawq_v2(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    seed: int,
    **probing: Unpack[Probing],
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
        **probing: How precise the shares are to be, and with how many Hessian-vector products at most.

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

    return average_traces(probe, [batch.size for batch in batches], **probing)
