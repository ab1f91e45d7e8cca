"""What was decided for a file, and the network that it should compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from quant_core.export import Placement
from quant_core.preparation import Prepared
from quant_core.quantizers import ActivationGrid, QuantizedWeight, Simulation
from quant_core.spec import BitPlan
from quant_core.spec.width import stored_of


@dataclass(frozen=True)
class Choice:
    """What was decided and written.

    Attributes:
        plan: Bits by layer.
        placement: How each layer runs.
        grids: 8-bit grids by tensor.
        weights: Codes and scales by layer.
    """

    plan: BitPlan
    placement: Placement
    grids: Mapping[str, ActivationGrid]
    weights: Mapping[str, QuantizedWeight]

    @property
    def stored_widths(self) -> dict[str, int]:
        """Layer name -> how its weight is rounded."""
        return {name: stored_of(width) for name, width in self.plan.widths.items()}


def simulate(model: ir.Model, job: Prepared, choice: Choice) -> Simulation:
    """Give the network that a file should compute.

    Args:
        model: The graph of the job, or its copy that takes any number of samples.
        job: The prepared job.
        choice: What was decided.

    Returns:
        Its simulation.
    """
    dynamic = [name for name, form in choice.placement.forms.items() if form == "dynamic"]
    blocks = {
        name: choice.weights[name].block_size or 0
        for name, form in choice.placement.forms.items()
        if form == "block"
    }
    return Simulation(
        model, job.layers, choice.weights, choice.grids, dynamic, blocks=blocks, device=job.program.device
    )
