"""Rounding as GPUs' compilers want it: what weighted operators read, and nothing behind them.

Rules of TensorRT's explicit quantization (its documentation, "Q/DQ Placement Recommendations"): round every input of
weighted operators, leave their outputs alone, put nothing between a convolution and its activation function, round
the shortcut of a residual addition.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from quant_core.export.placement.forms import Form, Placement
from quant_core.export.placement.guards import MOVED_PAST, guarded_layers
from quant_core.export.placement.tensor_flow import is_dequantized, is_rectifier, tensor_order, value_name
from quant_core.ingest.layer import Layer


def round_operands(model: ir.Model, layers: Collection[Layer], forms: Mapping[str, Form]) -> Placement:
    """Round what static layers read, and the shortcut of every addition that is rounded afterwards.

    An addition of a layer's output and a shortcut runs inside the layer's kernel; for that kernel to write integers,
    the shortcut must be read in integers. Of two layers' outputs, that of the later one stays as it is.

    What only moves rounded values is rounded again, to the same codes. Where it is not, onnxruntime adds such rounding
    itself when it loads the file on a CPU, of a type that it then contradicts (1.31, opset 21).

    Args:
        model: The normalised model.
        layers: Its layers.
        forms: Layer name -> how it runs.

    Returns:
        The placement; no activation function is absorbed.
    """
    static = {use.node for layer in layers if forms[layer.name] == "static" for use in layer.uses}
    points: set[str] = set()

    def is_rounded(value: ir.Value | None) -> bool:
        return value is not None and (value.name in points or is_dequantized(value))

    def is_rounded_later(value: ir.Value) -> bool:
        return is_rounded(value) or any(
            is_rectifier(node) and is_rounded_later(node.outputs[0]) for node, _ in value.uses()
        )

    def fuses(value: ir.Value | None) -> bool:
        """Whether an addition can be made by the kernel that writes this operand."""
        node = None if value is None else value.producer()
        return (
            value is not None
            and node is not None
            and node.name in static
            and len(tuple(value.uses())) == 1
            and not value.is_graph_output()
        )

    for node in model.graph:
        if node.name in static and not is_dequantized(node.inputs[0]):
            points.add(value_name(node.inputs[0]))
    order = {name: position for position, name in enumerate(tensor_order(model.graph))}
    for node in model.graph:
        if node.op_type != "Add" or node.domain or not is_rounded_later(node.outputs[0]):
            continue
        operands = sorted(node.inputs, key=lambda value: order.get(value_name(value), -1))
        fused = next((value for value in reversed(operands) if fuses(value)), None)
        if fused is None:
            continue
        for shortcut in operands:
            computed = shortcut is not None and shortcut.name in order
            if shortcut is not fused and computed and not is_rounded(shortcut):
                points.add(value_name(shortcut))
    aliases: dict[str, str] = {}
    for node in model.graph:
        if node.domain or node.op_type not in MOVED_PAST or len(node.outputs) != 1:
            continue
        source, name = value_name(node.inputs[0]), value_name(node.outputs[0])
        if (source in points or source in aliases) and name not in points:
            aliases[name] = aliases.get(source, source)
    return Placement(
        forms=forms,
        points=tuple(name for name in tensor_order(model.graph) if name in points),
        aliases=aliases,
        absorbed=frozenset(),
        guarded=guarded_layers(model.graph, layers, static, is_rounded),
    )
