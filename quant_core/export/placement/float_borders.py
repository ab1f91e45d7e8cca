"""Where integer kernels meet operators that run in float: channels can be scaled there by products, for little time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from quant_core.export.placement.code_flow import CodeFlow
from quant_core.export.placement.forms import Placement
from quant_core.export.placement.tensor_flow import captured_names, value_name
from quant_core.ingest.layer import Layer


@dataclass(frozen=True)
class FloatBorders:
    """Layers with integer kernels that have float operators as neighbours.

    Attributes:
        reading: Names of those that read what a float operator writes.
        writing: Names of those whose output float operators alone read.
    """

    reading: frozenset[str]
    writing: frozenset[str]


def float_borders(model: ir.Model, layers: Sequence[Layer], placement: Placement) -> FloatBorders:
    """Find the borders between tensors that exist as codes and those that do not.

    Args:
        model: The normalised graph.
        layers: Its layers.
        placement: How they run, and what is rounded.

    Returns:
        The layers at the borders. One whose weight is shared is not among them, nor one whose output the graph gives
        or a subgraph reads.
    """
    static = [layer for layer in layers if placement.forms[layer.name] == "static" and len(layer.uses) == 1]
    nodes = {str(node.name): node for node in model.graph}
    captured = captured_names(model.graph)
    flow = CodeFlow(layers, placement)

    def is_written_in_float(value: ir.Value) -> bool:
        maker = value.producer()
        return value_name(value) in placement.points and maker is not None and flow.runs_in_float(maker)

    def is_read_in_float(value: ir.Value) -> bool:
        readers = [node for node, _ in value.uses()]
        if not readers or value.is_graph_output() or value_name(value) in captured:
            return False
        return value_name(value) in placement.points and all(map(flow.runs_in_float, readers))

    reading, writing = set(), set()
    for layer in static:
        node = nodes[layer.uses[0].node]
        if node.inputs[0] is not None and is_written_in_float(node.inputs[0]):
            reading.add(layer.name)
        if is_read_in_float(node.outputs[0]):
            writing.add(layer.name)
    return FloatBorders(frozenset(reading), frozenset(writing))
