"""A quantized file in which single layers compute with other weights, to see what theirs cost.

Works on the finished file, ours or another tool's, as long as nodes or tensors keep the names of the float model. The
layer goes on reading what it reads, rounded as it is; only its weight is another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from quant_core.export.kernels.input_layout import before_layout
from quant_core.ingest.layer import RECURRENT, Layer, Use

_INTEGER_PRODUCTS = {"MatMulInteger", "ConvInteger"}
_BEHIND_PRODUCTS = {"Mul", "Cast", "Add"}
_PADDING = {"pads", "auto_pad"}
_FARTHEST = 12
_TWIN = "@twin"

Weights = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class _Twin:
    nodes: tuple[onnx.NodeProto, ...]
    result: str
    own: str
    tensors: tuple[onnx.TensorProto, ...]


class FloatTwins:
    """Twins of a file's layers.

    Attributes:
        found: Layers that a node of the file stands for; only these have twins.
    """

    def __init__(self, quantized: onnx.ModelProto, model: ir.Model, layers: Sequence[Layer]) -> None:
        """Find the layers in the file.

        Args:
            quantized: The quantized file; large weights may be left where they are.
            model: The normalised float model.
            layers: Its layers.
        """
        self._quantized = quantized
        self._float = ir.to_proto(model).graph
        self._nodes = {node.name: node for node in self._float.node}
        self._constants = {tensor.name: tensor for tensor in self._float.initializer}
        graph = quantized.graph
        self._by_name: dict[str, onnx.NodeProto] = {node.name: node for node in graph.node if node.name}
        self._writers: dict[str, onnx.NodeProto] = {
            output: node for node in graph.node for output in node.output
        }
        self.found = tuple(
            layer for layer in layers if all(self._twin(use, None) is not None for use in layer.uses)
        )

    def results(self, layer: Layer) -> list[tuple[str, str, str]]:
        """Name a layer's outputs: in the float model, in the file, and with the twin's weight.

        Args:
            layer: One of `found`.

        Returns:
            One triple for each use.
        """
        twins = [(use, self._twin(use, None)) for use in layer.uses]
        return [(use.output, twin.result, twin.own) for use, twin in twins if twin is not None]

    def beside(self, weights: Weights) -> onnx.ModelProto:
        """Write the file with a twin beside each layer, both visible as outputs.

        Args:
            weights: Weight name -> values, for every layer of `found`.

        Returns:
            The model.
        """
        model = self._copy()
        known = {output.name for output in model.graph.output}
        for layer in self.found:
            for use in layer.uses:
                twin = self._twin(use, weights[layer.weight])
                assert twin is not None
                self._insert(model.graph, twin)
                for name in (twin.result, twin.own):
                    if name not in known:
                        model.graph.output.append(
                            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                        )
                        known.add(name)
        return model

    def instead(self, layer: Layer, weight: NDArray[np.floating]) -> onnx.ModelProto:
        """Write the file with another weight for one layer.

        Args:
            layer: One of `found`.
            weight: Its weight.

        Returns:
            The model.
        """
        model = self._copy()
        for use in layer.uses:
            twin = self._twin(use, weight)
            assert twin is not None
            self._insert(model.graph, twin)
            for node in model.graph.node:
                for position, name in enumerate(node.output):
                    if name == twin.result:
                        node.output[position] = f"{name}@replaced"
                    elif name == twin.own:
                        node.output[position] = twin.result
        return model

    def _copy(self) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self._quantized)
        return model

    def _insert(self, graph: onnx.GraphProto, twin: _Twin) -> None:
        graph.initializer.extend(twin.tensors)
        place = next(i for i, node in enumerate(graph.node) if twin.result in node.output)
        for offset, node in enumerate(twin.nodes):
            graph.node.insert(place + 1 + offset, node)

    def _twin(self, use: Use, weight: NDArray[np.floating] | None) -> _Twin | None:
        original = self._nodes.get(use.node)
        if original is None:
            return None
        standing = self._by_name.get(use.node) or self._product(use.output, original.op_type)
        if standing is None:
            return None
        place = list(original.output).index(use.output)
        writer = self._writers.get(use.output)
        # A Slice that the float model's convolution has taken over stays behind the file's.
        result = use.output if writer is not None and writer.op_type != "Slice" else None
        if result is None and standing.op_type == original.op_type:
            result = standing.output[place]
        if result is None or result not in self._writers:
            return None
        own = f"{result}{_TWIN}{use.operand}"  # the weights of a recurrent node have one each
        source = self._source(original, standing, use, own)
        if source is None:
            return None
        before, activation = source
        twin = onnx.NodeProto()
        twin.CopyFrom(original)
        twin.name = own
        tensors = []
        for position, name in enumerate(original.input):
            if position == use.operand:
                twin.input[position] = f"{own}.weight"
                if weight is not None:
                    values = np.ascontiguousarray(weight, dtype=np.float32)
                    tensors.append(numpy_helper.from_array(values, f"{own}.weight"))
            elif name == use.input and name not in self._constants:
                twin.input[position] = activation
            elif original.op_type in RECURRENT:
                if name:  # the other weight and the states stay what they are in the file
                    twin.input[position] = standing.input[position]
            elif name in self._constants:
                constant = onnx.TensorProto()
                constant.CopyFrom(self._constants[name])
                constant.name = twin.input[position] = f"{own}.{position}"
                tensors.append(constant)
            elif name and name not in self._writers:
                return None
        if standing.op_type == "ConvInteger" or (standing.op_type == "Conv" and not before):
            _pad_as(twin, standing)
        del twin.output[:]
        twin.output.extend([""] * place + [own])
        return _Twin((*before, twin), result, own, tuple(tensors))

    def _product(self, tensor: str, op: str) -> onnx.NodeProto | None:
        """Go back from a tensor over what scales, casts and adds a bias to the product behind it."""
        waiting, seen = [tensor], 0
        while waiting and seen < _FARTHEST:
            node = self._writers.get(waiting.pop(0))
            seen += 1
            if node is None:
                continue
            if node.op_type in {op, *_INTEGER_PRODUCTS, "MatMulNBits"}:
                return node
            if node.op_type in _BEHIND_PRODUCTS:
                waiting.extend(node.input)
        return None

    def _source(
        self, original: onnx.NodeProto, standing: onnx.NodeProto, use: Use, own: str
    ) -> tuple[list[onnx.NodeProto], str] | None:
        """What the layer reads in the file, in float, and the nodes that make it so."""
        if standing.op_type in _INTEGER_PRODUCTS:
            codes = standing.input[0]
            maker = self._writers.get(codes)
            if maker is None or maker.op_type not in {"DynamicQuantizeLinear", "QuantizeLinear"}:
                return None
            dynamic = maker.op_type == "DynamicQuantizeLinear"
            steps = list(maker.output[1:3] if dynamic else maker.input[1:3])
            made = f"{own}.input"
            return [helper.make_node("DequantizeLinear", [codes, *steps], [made], name=made)], made
        if standing.op_type == "MatMulNBits":
            return [], standing.input[0]
        if use.input in self._constants:
            return [], use.input
        if standing.op_type != original.op_type:
            return None
        return self._as_made(standing.input[list(original.input).index(use.input)], own)

    def _as_made(self, name: str, own: str) -> tuple[list[onnx.NodeProto], str]:
        """A rounded tensor before it was laid out for the layer's kernel, by nodes that no model names."""
        maker = self._writers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return [], name
        steps, laid_out = maker.input[1:], maker.input[0]
        rounding = self._writers.get(laid_out)
        if rounding is not None and rounding.op_type == "QuantizeLinear":
            laid_out = rounding.input[0]  # in steps, before it was rounded
        source = before_layout(laid_out, self._writers)
        if source == laid_out:
            return [], name
        made, nodes, codes = f"{own}.input", [], source
        if laid_out != maker.input[0]:
            codes = f"{own}.codes"
            nodes.append(helper.make_node("QuantizeLinear", [source, *steps], [codes], name=codes))
        return [*nodes, helper.make_node("DequantizeLinear", [codes, *steps], [made], name=made)], made


def _pad_as(twin: onnx.NodeProto, standing: onnx.NodeProto) -> None:
    """Pad as the file's convolution does, in which a Pad in front or a Slice behind may be nodes of their own."""
    kept = [attribute for attribute in twin.attribute if attribute.name not in _PADDING]
    del twin.attribute[:]
    twin.attribute.extend(kept)
    twin.attribute.extend(attribute for attribute in standing.attribute if attribute.name in _PADDING)
