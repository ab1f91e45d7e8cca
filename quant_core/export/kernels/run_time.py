"""Time that a file takes on onnxruntime's CPU kernels, estimated: to choose between placements by, no promise."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from quant_core.export.kernels.channel_blocks import ChannelBlocks
from quant_core.export.kernels.input_layout import laid_out_time
from quant_core.export.kernels.times import (
    BORDER,
    NEAR_WEIGHTS,
    PASS,
    START,
    dynamic_time,
    float_time,
    operator_time,
)
from quant_core.export.placement.code_flow import CodeFlow
from quant_core.export.placement.forms import Placement
from quant_core.export.placement.gates import gate_of, is_swish_gate
from quant_core.ingest.layer import Layer

MOVES_NOTHING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that hand on the same bytes."""
_ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub"})

Pass = Literal["border", "blocks"]
"""What is done between two kernels: rounding a tensor or making float numbers of its codes, or laying out its channels
in blocks or back."""
_ELEMENT: Mapping[Pass, int] = {"border": BORDER, "blocks": PASS}


def estimated_time(
    model: ir.Model, layers: Sequence[Layer], placement: Placement, elements: Mapping[str, float]
) -> float:
    """Estimate the time of one run with one sample.

    Layers and operators take what their kernels take (`kernel_times`), but for what onnxruntime computes inside a float
    convolution, and what moves nothing. Where codes become float numbers, or float numbers codes, there is one more
    pass, and where channels are laid out in blocks for float convolutions, or back, another.

    Args:
        model: The normalised model.
        layers: Its layers.
        placement: How they run, and what is rounded.
        elements: Tensor name -> elements of one sample.

    Returns:
        Time in products in float.
    """
    owners = {use.node: layer for layer in layers for use in layer.uses}
    flow = CodeFlow(layers, placement)
    estimate = _Operators(flow, ChannelBlocks(flow, owners, elements), elements)
    near = sum(layer.parameters for layer in layers if layer.op != "Gather") <= NEAR_WEIGHTS
    time = sum(_layer_time(layer, model, placement, near=near) for layer in layers)
    time += sum(
        START + _ELEMENT[kind] * elements.get(name, 0)
        for name, kind in _passes(model, placement, flow, estimate.blocks)
    )
    for node in model.graph:
        if str(node.name) in owners or str(node.name) in placement.absorbed:
            continue
        if not (node.op_type in MOVES_NOTHING or adds_bias(node, owners, placement)):
            time += estimate.time(node)
    return time


def passes(
    model: ir.Model, layers: Sequence[Layer], placement: Placement, elements: Mapping[str, float]
) -> list[tuple[str, Pass]]:
    """List what is gone over because two kernels want it otherwise: another type, or another order of channels.

    Args:
        model: The normalised model.
        layers: Its layers.
        placement: How they run, and what is rounded.
        elements: Tensor name -> elements of one sample.

    Returns:
        Name of a tensor and what is done to it; a tensor that is laid out behind its rounding stands there twice.
    """
    owners = {use.node: layer for layer in layers for use in layer.uses}
    flow = CodeFlow(layers, placement)
    return _passes(model, placement, flow, ChannelBlocks(flow, owners, elements))


def adds_bias(node: ir.Node, owners: Mapping[str, Layer], placement: Placement) -> bool:
    """Tell whether a node adds a constant to a product that does so itself where its input is rounded as it runs.

    Args:
        node: The node.
        owners: Node name -> layer.
        placement: How the layers run.

    Returns:
        True if so.
    """
    if node.op_type != "Add" or node.domain:
        return False
    makers = [value.producer() for value in node.inputs if value is not None and value.const_value is None]
    if len(makers) != 1 or makers[0] is None:
        return False
    layer = owners.get(str(makers[0].name))
    return layer is not None and placement.forms[layer.name] == "dynamic"


def _passes(
    model: ir.Model, placement: Placement, flow: CodeFlow, blocks: ChannelBlocks
) -> list[tuple[str, Pass]]:
    points = set(placement.points)
    found: list[tuple[str, Pass]] = []

    def gone_over(names: Collection[str], kind: Pass) -> None:
        found.extend((name, kind) for name in sorted(names))

    def laid_out(values: Iterable[ir.Value]) -> None:
        gone_over(_names(value for value in values if blocks.are_laid_out(value)), "blocks")

    gone_over(_names(filter(flow.is_code, model.graph.outputs)), "border")
    gone_over(_names(model.graph.inputs) & points, "border")
    laid_out(model.graph.inputs)
    for node in model.graph:
        if flow.runs_in_float(node):
            gone_over(_names(node.outputs) & points, "border")
            if gate_of(node) is None:  # which reads the same, dequantized once for both
                gone_over(_names(filter(flow.is_code, node.inputs)), "border")
        laid_out(node.outputs)
    return found


@dataclass(frozen=True, eq=False)
class _Operators:
    flow: CodeFlow
    blocks: ChannelBlocks
    elements: Mapping[str, float]

    def _count(self, names: Collection[str]) -> float:
        return sum(self.elements.get(name, 0) for name in sorted(names))

    def time(self, node: ir.Node) -> float:
        """What an operator takes that is no layer."""
        if self.blocks.is_fused(node) or self._ends_swish(node):
            return 0.0
        written = self._count(_names(node.outputs))
        sizes = [_size(value, self.elements) for value in node.inputs if value is not None]
        factors = [size for size in sizes if 1 < size < written] if node.op_type in _ARITHMETIC else []
        rows = 0.0 if not factors or any(map(self.blocks.lie_in, node.inputs)) else written / min(factors)
        return operator_time(
            node,
            written,
            max(sizes, default=0.0),
            in_float=self.flow.runs_in_float(node),
            rounded=any(map(self.flow.is_code, node.outputs)),
            rows=rows,
        )

    def _ends_swish(self, node: ir.Node) -> bool:
        """Whether a node is the product of `x Sigmoid(x)` in float, which one operator computes behind codes."""
        gate = gate_of(node)
        if gate is None or not is_swish_gate(gate):
            return False
        return not self.flow.is_code(gate.outputs[0]) and not self.blocks.is_fused(gate)


def _names(values: Iterable[ir.Value | None]) -> set[str]:
    return {str(value.name) for value in values if value is not None}


def _size(value: ir.Value, elements: Mapping[str, float]) -> float:
    held = value.const_value
    return elements.get(str(value.name), 0) if held is None else float(held.size)


def _layer_time(layer: Layer, model: ir.Model, placement: Placement, *, near: bool) -> float:
    form = placement.forms[layer.name]
    if form == "static":
        return laid_out_time(layer, model)
    return dynamic_time(layer) if form in {"dynamic", "block"} else float_time(layer, near=near)
