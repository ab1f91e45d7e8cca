"""Biases of layers on integer kernels, which add them in units of input step times weight step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from quant_core.codes import ActivationGrid, QuantizedWeight
from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.export.placement.forms import Placement
from quant_core.export.writing.bias_room import with_room_for_bias
from quant_core.ingest.layer import Layer

_INT32 = np.iinfo(np.int32).max


@dataclass(frozen=True, eq=False)
class IntegerBiases:
    """What biases of static layers ask of their weights, and how they are stored.

    Attributes:
        graph: The graph that is exported.
        layers: Node name -> the layers it reads.
        placement: How each layer runs and which tensors are rounded.
        grids: Tensor name -> grid, for every point of the placement.
        initializers: Its constants by name.
    """

    graph: onnx.GraphProto
    layers: Mapping[str, Sequence[Layer]]
    placement: Placement
    grids: Mapping[str, ActivationGrid]
    initializers: Mapping[str, onnx.TensorProto]

    def with_room(self, layer: Layer, weight: QuantizedWeight) -> QuantizedWeight:
        """Give a static layer's weight steps that leave room for the biases of all who read it.

        Args:
            layer: The layer.
            weight: Its codes and scales.

        Returns:
            The same weight, or one with larger steps in some channels.
        """
        if weight.format != "int":
            return weight
        for node in self.graph.node:
            if layer in self.layers.get(node.name, ()) and len(node.input) > 2 and node.input[2]:
                step = self._input_step(node.input[0])
                if step is not None:
                    weight = with_room_for_bias(weight, self._values(node), float(step))
        return weight

    def is_requantized(self, output: str) -> bool:
        """Say whether a static node's output is rounded, itself or after an absorbed Relu.

        Args:
            output: Name of the output.

        Returns:
            Whether its kernel writes codes.
        """
        if self.placement.is_rounded(output):
            return True
        return any(
            output in node.input and self.is_requantized(node.output[0])
            for node in self.graph.node
            if node.name in self.placement.absorbed
        )

    def write(self, writer: GraphWriter, node: onnx.NodeProto, weight: QuantizedWeight) -> str:
        """Store a bias as int32: what keeps an integer Gemm with float output integer.

        Args:
            writer: Takes the codes and the node that reads them.
            node: A static node with a bias.
            weight: The weight it reads, with room for that bias.

        Returns:
            The tensor to read; the float bias where the input's step is computed or 32 bits do not hold the codes.
        """
        step, stored = self._input_step(node.input[0]), str(node.input[2])
        if step is None:
            return stored
        scale = step * weight.scale
        codes = np.round(self._values(node).astype(np.float64) / scale)
        if np.abs(codes).max(initial=0) > _INT32:
            return stored
        if scale.ndim:
            codes = np.broadcast_to(codes, scale.shape)
        return writer.node(
            "DequantizeLinear",
            [writer.constant(codes.astype(np.int32)), writer.constant(scale)],
            axis=0,
        )

    def _values(self, node: onnx.NodeProto) -> npt.NDArray[np.floating]:
        return onnx.numpy_helper.to_array(self.initializers[node.input[2]])

    def _input_step(self, name: str) -> np.float32 | None:
        """Step of a rounded tensor, of its grid or of the part that rounds it already; None if that is computed."""
        if self.placement.is_rounded(name):
            return np.float32(self.grids[self.placement.aliases.get(name, name)].scale)
        (maker,) = (node for node in self.graph.node if name in node.output)
        scale = self.initializers.get(maker.input[1])
        return None if scale is None else np.float32(onnx.numpy_helper.to_array(scale).reshape(-1)[0])
