"""Time that a file takes on onnxruntime's CPU kernels, estimated: to choose between placements by, no promise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from quant_core.export.code_flow import CodeFlow
from quant_core.export.forms import Placement
from quant_core.ingest.layer import Layer

KERNEL_SPEED = 4
"""How many products of 8 bits take the time of one in float."""
_DEPTHWISE = 3
"""How many products one of a depthwise convolution takes as long as, in float and in integers."""
PASS = 16
"""Products in float that take the time of reading or writing one element."""
_LAYOUT = 12
"""The same for what lays an element out for a float convolution between integer ones, or back."""
_MOVE = 4
"""The same for a code that is moved."""
_FREE = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_INTEGER = frozenset({"static", "dynamic", "block"})


def estimated_time(
    model: ir.Model, layers: Sequence[Layer], placement: Placement, elements: Mapping[str, float]
) -> float:
    """Estimate the time of one run with one sample.

    A product of 8 bits takes a quarter of one in float. An operator takes a pass over what it writes, a shorter one
    where it moves codes, none where nothing moves. Where codes become float numbers, or float numbers codes, there is
    one more pass, and around float convolutions the layout changes.

    Args:
        model: The normalised model.
        layers: Its layers.
        placement: How they run, and what is rounded.
        elements: Tensor name -> elements of one sample.

    Returns:
        Time in products in float.
    """
    flow = CodeFlow(layers, placement)
    nodes = {use.node for layer in layers for use in layer.uses}

    def count(names: Iterable[str]) -> float:
        return sum(elements.get(name, 0) for name in sorted(names))

    time = sum(_product_time(layer, placement) for layer in layers)
    read = _names(filter(flow.is_code, model.graph.outputs))
    time += PASS * count(_names(model.graph.inputs) & set(placement.points))
    for node in model.graph:
        written, in_float = _names(node.outputs), flow.runs_in_float(node)
        if in_float:
            time += PASS * count(written & set(placement.points))
            read |= _names(filter(flow.is_code, node.inputs))
        if str(node.name) in nodes:
            if in_float and node.op_type == "Conv":
                time += _LAYOUT * count([*written, *_names(node.inputs[:1])])
        elif str(node.name) not in placement.absorbed and node.op_type not in _FREE:
            moves = not written.isdisjoint(placement.aliases)
            time += (_MOVE if moves else PASS) * count(written)
    return time + PASS * count(read)  # what is read in float is dequantized once


def _names(values: Iterable[ir.Value | None]) -> set[str]:
    return {str(value.name) for value in values if value is not None}


def _product_time(layer: Layer, placement: Placement) -> float:
    form = placement.forms[layer.name]
    if layer.is_depthwise:
        return _DEPTHWISE * layer.macs
    rounded = PASS * layer.input_elements if form in {"dynamic", "block"} else 0
    return layer.macs / (KERNEL_SPEED if form in _INTEGER else 1) + rounded
