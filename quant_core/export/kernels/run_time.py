"""Time that a file takes on onnxruntime's CPU kernels, estimated: to choose between placements by, no promise."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from quant_core.export.kernels.input_layout import laid_out_time
from quant_core.export.kernels.placed_run import Pass, PlacedRun, value_names
from quant_core.export.kernels.times import (
    BORDER,
    NEAR_WEIGHTS,
    PASS,
    START,
    dynamic_time,
    float_time,
    operator_time,
)
from quant_core.export.placement.forms import Placement
from quant_core.export.placement.gates import gate_of, is_swish_gate
from quant_core.ingest.layer import Layer

_ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub"})

_ELEMENT: Mapping[Pass, int] = {"border": BORDER, "blocks": PASS}


def estimated_time(run: PlacedRun) -> float:
    """Estimate the time of one run with one sample.

    Layers and operators take what their kernels take (`kernel_times`), but for what onnxruntime computes inside a float
    convolution, and what moves nothing. Where codes become float numbers, or float numbers codes, there is one more
    pass, and where channels are laid out in blocks for float convolutions, or back, another.

    Args:
        run: The file.

    Returns:
        Time in products in float.
    """
    operators = _Operators(run)
    near = sum(layer.parameters for layer in run.layers if layer.op != "Gather") <= NEAR_WEIGHTS
    time = sum(_layer_time(layer, run.model, run.placement, near=near) for layer in run.layers)
    time += sum(START + _ELEMENT[kind] * run.elements.get(name, 0) for name, kind in run.passes)
    for node in run.model.graph:
        if str(node.name) in run.owners or str(node.name) in run.placement.absorbed:
            continue
        if not run.takes_nothing(node):
            time += operators.time(node)
    return time


@dataclass(frozen=True, eq=False)
class _Operators:
    run: PlacedRun

    def _count(self, names: Collection[str]) -> float:
        return sum(self.run.elements.get(name, 0) for name in sorted(names))

    def time(self, node: ir.Node) -> float:
        """What an operator takes that is no layer."""
        if self.run.blocks.is_fused(node) or self._ends_swish(node):
            return 0.0
        written = self._count(value_names(node.outputs))
        sizes = [_size(value, self.run.elements) for value in node.inputs if value is not None]
        factors = [size for size in sizes if 1 < size < written] if node.op_type in _ARITHMETIC else []
        rows = 0.0 if not factors or any(map(self.run.blocks.lie_in, node.inputs)) else written / min(factors)
        return operator_time(
            node,
            written,
            max(sizes, default=0.0),
            in_float=self.run.flow.runs_in_float(node),
            rounded=any(map(self.run.flow.is_code, node.outputs)),
            rows=rows,
        )

    def _ends_swish(self, node: ir.Node) -> bool:
        """Whether a node is the product of `x Sigmoid(x)` in float, which one operator computes behind codes."""
        gate = gate_of(node)
        if gate is None or not is_swish_gate(gate):
            return False
        return not self.run.flow.is_code(gate.outputs[0]) and not self.run.blocks.is_fused(gate)


def _size(value: ir.Value, elements: Mapping[str, float]) -> float:
    held = value.const_value
    return elements.get(str(value.name), 0) if held is None else float(held.size)


def _layer_time(layer: Layer, model: ir.Model, placement: Placement, *, near: bool) -> float:
    form = placement.forms[layer.name]
    if form == "static":
        return laid_out_time(layer, model)
    return dynamic_time(layer) if form in {"dynamic", "block"} else float_time(layer, near=near)
