"""What onnxruntime does around float convolutions: channels in blocks, activation functions computed inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from quant_core.export.kernels.times import BLOCK, is_blocked
from quant_core.export.placement.code_flow import CodeFlow
from quant_core.export.placement.gates import gate_of
from quant_core.ingest.layer import Layer

_FUSED = frozenset({"Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})
"""What a float convolution computes before it writes."""
_IN_BLOCKS = _FUSED | {"Add", "AveragePool", "Concat", "Gelu", "GlobalAveragePool", "MaxPool", "Mul"}
"""What runs on channels in blocks where its operands lie so."""
_CHANNEL_AXIS = 1


@dataclass(frozen=True, eq=False)
class ChannelBlocks:
    """Answers about the float parts of a placed graph.

    Attributes:
        flow: What exists as codes.
        owners: Node name -> layer.
        elements: Tensor name -> elements of one sample.
    """

    flow: CodeFlow
    owners: Mapping[str, Layer]
    elements: Mapping[str, float]
    _known: dict[str, bool] = field(default_factory=dict)

    def lie_in(self, value: ir.Value | None) -> bool:
        """Tell whether a float tensor has its channels in blocks.

        Args:
            value: The tensor.

        Returns:
            True for what a float convolution writes, and what is made of nothing else.
        """
        if value is None or self.flow.is_code(value):
            return False
        name = str(value.name)
        if name not in self._known:
            maker = value.producer()
            self._known[name] = maker is not None and self._writes(maker)
        return self._known[name]

    def are_laid_out(self, value: ir.Value) -> bool:
        """Tell whether a tensor takes a pass for its layout.

        Args:
            value: The tensor.

        Returns:
            True if it lies in blocks and something reads it otherwise, or the other way round.
        """
        readers, maker = [node for node, _ in value.uses()], value.producer()
        if self.lie_in(value):
            return value.is_graph_output() or not all(map(self._reads, readers))
        if maker is not None and self._convolves(maker):  # and the output is rounded
            return True
        return any(
            self._convolves(node) and self._fills(node) and node.inputs[0] is value for node in readers
        )

    def is_fused(self, node: ir.Node) -> bool:
        """Tell whether a float convolution computes a node before it writes.

        Args:
            node: The node.

        Returns:
            True for activation functions that alone read what the convolution writes, hard-swish in parts too.
        """
        if node.domain or not node.inputs or node.inputs[0] is None:
            return False
        gate = gate_of(node)
        if gate is not None:
            return gate.op_type == "HardSigmoid" and self.is_fused(gate)
        value = node.inputs[0]
        maker = value.producer()
        if node.op_type not in _FUSED or maker is None or not self._convolves(maker):
            return False
        others = [reader for reader, _ in value.uses() if reader is not node]
        return not value.is_graph_output() and all(gate_of(reader) is node for reader in others)

    def _convolves(self, node: ir.Node) -> bool:
        layer = self.owners.get(str(node.name))
        return layer is not None and is_blocked(layer) and self.flow.runs_in_float(node)

    def _fills(self, node: ir.Node) -> bool:
        layer = self.owners[str(node.name)]
        return layer.shape[_CHANNEL_AXIS] * layer.group >= BLOCK  # an image is read as it is

    def _writes(self, node: ir.Node) -> bool:
        if node.domain or self._convolves(node):
            return not node.domain
        if node.op_type not in _IN_BLOCKS or not self.flow.runs_in_float(node):
            return False
        made = [value for value in node.inputs if value is not None and value.const_value is None]
        alike = (
            node.op_type == "Concat" or len({self.elements.get(str(value.name), 0) for value in made}) == 1
        )
        return bool(made) and alike and all(map(self.lie_in, made))

    def _reads(self, node: ir.Node) -> bool:
        return self._convolves(node) or any(map(self.lie_in, node.outputs))
