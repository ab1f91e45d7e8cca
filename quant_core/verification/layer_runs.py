"""What to look at to judge one layer by itself: the tensor it reads, and the one its kernel writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from quant_core.export import Form, Placement
from quant_core.ingest.layer import RECURRENT, Layer


@dataclass(frozen=True)
class LayerRun:
    """One use of a layer's weight.

    Attributes:
        layer: The layer.
        form: How it runs.
        source: Tensor that it reads.
        states: What else a recurrent node reads that is computed: its first states, the lengths of sequences.
        result: Tensor that its kernel writes, after the Relu or Clip that rounding made redundant.
    """

    layer: Layer
    form: Form
    source: str
    result: str
    states: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[str, ...]:
        """All tensors that have to be fed for the result."""
        return self.source, *self.states


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
    nodes = {str(node.name): node for node in model.graph if node.op_type in RECURRENT}
    return tuple(
        LayerRun(
            layer,
            placement.forms[layer.name],
            use.input,
            _result(values[use.output], placement),
            _states(nodes[use.node]) if use.node in nodes else (),
        )
        for layer in layers
        for use in layer.uses
    )


def _states(node: ir.Node) -> tuple[str, ...]:
    return tuple(
        str(value.name) for value in node.inputs[1:] if value is not None and value.const_value is None
    )


def _result(value: ir.Value, placement: Placement) -> str:
    for node, _ in value.uses():
        if node.name in placement.absorbed:
            return _result(node.outputs[0], placement)
    return str(value.name)
