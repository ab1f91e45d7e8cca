"""What to look at to judge one layer by itself: the tensor it reads, and the one its kernel writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from quant_core.export import Form, Placement
from quant_core.ingest.layer import Layer


@dataclass(frozen=True)
class LayerRun:
    """One use of a layer's weight.

    Attributes:
        layer: The layer.
        form: How it runs.
        source: Tensor that it reads.
        result: Tensor that its kernel writes, after the Relu or Clip that rounding made redundant.
    """

    layer: Layer
    form: Form
    source: str
    result: str


def layer_runs(model: ir.Model, layers: Sequence[Layer], placement: Placement) -> tuple[LayerRun, ...]:
    """List every use of every layer.

    Args:
        model: The normalised model.
        layers: Its layers.
        placement: How they run.

    Returns:
        The uses, in the layers' order.
    """
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    return tuple(
        LayerRun(layer, placement.forms[layer.name], use.input, _result(values[use.output], placement))
        for layer in layers
        for use in layer.uses
    )


def _result(value: ir.Value, placement: Placement) -> str:
    for node, _ in value.uses():
        if node.name in placement.absorbed:
            return _result(node.outputs[0], placement)
    return str(value.name)
