"""Rounding for onnxruntime's integer kernels: their inputs and outputs, and what can run on integers between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from quant_core.export.placement.code_convolutions import image_channels, is_code_convolution
from quant_core.export.placement.code_movers import moves_codes, repetitions
from quant_core.export.placement.forms import Form, Placement
from quant_core.export.placement.gates import gate_of, is_swish_gate
from quant_core.export.placement.guards import guarded_layers, guarded_pools
from quant_core.export.placement.tensor_flow import (
    captured_names,
    feeds_quantizer,
    is_dequantized,
    is_rectifier,
    tensor_order,
    value_name,
)
from quant_core.ingest.layer import Layer

_LAYOUT_KEEPERS = frozenset({"Identity", "MaxPool", "Pad", "Resize", "Slice", "Split"})
"""Movers of codes that onnxruntime runs channels last behind convolutions that do."""

ROUNDED_OPS = frozenset({"Add", "Mul", "GlobalAveragePool", "Concat", "Sigmoid", "LeakyRelu"})
"""Operators with an integer kernel of their own in onnxruntime; they take and give 8-bit tensors."""


def round_kernels(
    model: ir.Model,
    layers: Collection[Layer],
    forms: Mapping[str, Form],
    *,
    swish_in_float: bool = False,
) -> Placement:
    """Round what integer kernels read and write.

    Inputs and outputs of static layers are rounded, but for those that a part which is quantized already rounds to its
    own grid. A Relu, or a Clip that starts at zero, right after such an output is absorbed: the unsigned grid starts at
    zero and clips by itself. Additions and other operators with integer kernels between rounded tensors are rounded
    too, and operators that only move values run on codes, but for a MaxPool of codes that are not channels last. What
    wide layers read is rounded to 16 bits, unless an integer kernel has it in 8 already.

    Args:
        model: The normalised model.
        layers: Its layers.
        forms: Layer name -> how it runs.
        swish_in_float: Whether `x Sigmoid(x)` of a rounded x is computed in float and rounded, not its sigmoid too.

    Returns:
        The placement.
    """
    return _Placer(model, layers, forms, swish_in_float=swish_in_float).place()


class _Placer:
    def __init__(
        self,
        model: ir.Model,
        layers: Collection[Layer],
        forms: Mapping[str, Form],
        *,
        swish_in_float: bool,
    ) -> None:
        self.graph = model.graph
        self.swish_in_float = swish_in_float
        self.layers = layers
        self.forms = forms
        self.static_nodes = {
            use.node for layer in layers if forms[layer.name] == "static" for use in layer.uses
        }
        self.wide_nodes = {use.node for layer in layers if forms[layer.name] == "wide" for use in layer.uses}
        self.points: set[str] = set()
        self.aliases: dict[str, str] = {}
        self.absorbed: set[str] = set()
        self.channels_last: set[str] = set()
        self.channels = image_channels(self.graph)
        self.convolved: dict[str, int] = {}
        self.repeated: dict[str, tuple[int, int]] = {}
        self.joined: dict[str, tuple[tuple[str, int], ...]] = {}
        self.captured = captured_names(self.graph)

    def place(self) -> Placement:
        nodes = list(self.graph)
        for node in nodes:
            if node.name in self.static_nodes:
                if not is_dequantized(node.inputs[0]):
                    self.points.add(value_name(node.inputs[0]))
                self._round_output(node)
        for node in nodes:
            self._extend(node)
            if self._lays_channels_last(node):
                self.channels_last.update(str(value.name) for value in node.outputs)
        wide = frozenset(
            value_name(node.inputs[0])
            for node in nodes
            if node.name in self.wide_nodes and not self._is_rounded(node.inputs[0])
        )
        rounded = (self.points | wide) - self.aliases.keys()
        points = tuple(name for name in tensor_order(self.graph) if name in rounded)

        def is_rounded(value: ir.Value | None) -> bool:
            return self._is_rounded(value) or (value is not None and value.name in wide)

        return Placement(
            forms=self.forms,
            points=points,
            aliases=self.aliases,
            absorbed=frozenset(self.absorbed),
            guarded=guarded_layers(self.graph, self.layers, self.static_nodes, is_rounded),
            float_pools=guarded_pools(self.graph, self.points, self.channels_last) - self.convolved.keys(),
            wide=wide,
            repeated=self.repeated,
            joined=self.joined,
            convolved=self.convolved,
        )

    def _is_rounded(self, value: ir.Value | None) -> bool:
        if value is None:
            return False
        return value.name in self.points or value.name in self.joined or is_dequantized(value)

    def _round_output(self, node: ir.Node) -> None:
        """Round the node's output, or that of the Relu it feeds alone."""
        value = node.outputs[0]
        if node.op_type == "Gemm" and not self._feeds_integers(value):
            return  # its integer kernel can write float
        if feeds_quantizer(value):
            return
        while (after := self._only_consumer(value)) is not None and is_rectifier(after):
            if feeds_quantizer(after.outputs[0]):
                return
            self.absorbed.add(str(after.name))
            value = after.outputs[0]
        self.points.add(value_name(value))

    def _feeds_integers(self, value: ir.Value) -> bool:
        for node, _ in value.uses():
            if node.name in self.static_nodes or (node.op_type in ROUNDED_OPS and node.domain == ""):
                return True
            if node.op_type == "BatchNormalization" and self._is_convolved(node):
                return True
            passed_on = is_rectifier(node) or moves_codes(node) or node.op_type == "AveragePool"
            if passed_on and any(map(self._feeds_integers, node.outputs)):
                return True
        return False

    def _only_consumer(self, value: ir.Value) -> ir.Node | None:
        uses = tuple(value.uses())
        if len(uses) != 1 or value.is_graph_output() or value.name in self.captured:
            return None
        return uses[0][0]

    def _extend(self, node: ir.Node) -> None:
        """Carry rounding through an operator with an integer kernel whose inputs are all rounded."""
        if node.domain or not node.inputs or not node.outputs or node.graph is not self.graph:
            return
        outputs = [output for output in node.outputs if output.name]
        if any(output.is_graph_output() or output.name in self.captured for output in outputs):
            return
        if not any(map(self._feeds_integers, outputs)):
            return
        if self._runs_on_codes(node) and (source := value_name(node.inputs[0])) in self.points:
            self.points.update(map(value_name, outputs))
            self.aliases |= dict.fromkeys(map(value_name, outputs), self.aliases.get(source, source))
            if source in self.channels_last and (times := repetitions(node)) is not None:
                self.repeated[str(node.name)] = times
        elif parts := self._joined_parts(node):
            self.joined[value_name(node.outputs[0])] = parts
        elif self.swish_in_float and is_swish_gate(node):
            return
        elif node.op_type in ROUNDED_OPS and all(self._is_rounded(value) for value in self._operands(node)):
            self._round_output(node)
        elif self._is_rounded(node.inputs[0]) and self._is_convolved(node):
            self.convolved[str(node.name)] = self.channels[value_name(node.inputs[0])]
            self._round_output(node)
        elif node.op_type == "Concat" and (added := self._float_parts(node)):
            self.points.update(added)
            self._round_output(node)

    def _operands(self, node: ir.Node) -> list[ir.Value | None]:
        """What an operator reads, of `x Sigmoid(x)` as a whole x alone."""
        gate = gate_of(node) if self.swish_in_float else None
        return [gate.inputs[0]] if gate is not None and is_swish_gate(gate) else list(node.inputs)

    def _runs_on_codes(self, node: ir.Node) -> bool:
        # onnxruntime pools codes fast where a convolution before has laid channels last, 32 channels of 56 x 56 in
        # 33 us; elsewhere that takes 1,206, and in float 17 (1.31, one thread).
        return moves_codes(node) and (
            node.op_type != "MaxPool" or value_name(node.inputs[0]) in self.channels_last
        )

    def _joined_parts(self, node: ir.Node) -> tuple[tuple[str, int], ...]:
        """Parts of a Concat that normalizations alone read: they take each channel in steps of its part."""
        values = [value for value in node.inputs if value is not None]
        names = list(map(value_name, values))
        known = all(name in self.channels for name in names) and any(map(self._is_rounded, values))
        if not known or any(map(is_dequantized, values)) or not self._joins(node):
            return ()
        self.points.update(
            name for name, value in zip(names, values, strict=True) if not self._is_rounded(value)
        )
        parts: list[tuple[str, int]] = []
        for name in names:
            parts += self.joined.get(name, [(self.aliases.get(name, name), self.channels[name])])
        return tuple(parts)

    def _joins(self, node: ir.Node) -> bool:
        if node.op_type != "Concat" or value_name(node.outputs[0]) not in self.channels:
            return False
        return all(
            self._joins(reader) or (reader.op_type == "BatchNormalization" and self._is_convolved(reader))
            for reader, _ in node.outputs[0].uses()
        )

    def _is_convolved(self, node: ir.Node) -> bool:
        """Whether a node of codes runs as an integer convolution, and others of codes behind it."""
        channels = self.channels.get("" if node.inputs[0] is None else value_name(node.inputs[0]))
        if channels is None or not is_code_convolution(node, channels):
            return False
        return any(map(self._feeds_integers, node.outputs))

    def _lays_channels_last(self, node: ir.Node) -> bool:
        """Tell whether onnxruntime writes channels last, as integer convolutions do and what reads nothing else."""
        if node.domain:
            return False
        if node.name in self.static_nodes:
            return node.op_type == "Conv"
        if node.name in self.convolved:
            return True
        if node.op_type in ROUNDED_OPS:
            return all(value_name(value) in self.channels_last for value in node.inputs if value is not None)
        keeps = node.name in self.absorbed or node.op_type in _LAYOUT_KEEPERS
        return keeps and value_name(node.inputs[0]) in self.channels_last

    def _float_parts(self, node: ir.Node) -> set[str]:
        """Parts of a Concat to round beside those that are; none where all would be, or others read one."""
        # Cheaper than to copy all of them in float and to round that: a U-Net's time fell by a tenth (batch 8).
        parts = {value for value in node.inputs if value is not None and not self._is_rounded(value)}
        if len(parts) == len(set(node.inputs)):
            return set()
        alone = all(self._only_consumer(value) is node and value.producer() is not None for value in parts)
        return {value_name(value) for value in parts} if alone else set()
