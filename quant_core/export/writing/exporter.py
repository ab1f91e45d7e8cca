"""The file of a quantized model, written node by node for any target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx
import onnx_ir as ir

from quant_core.codes import SPREAD, ActivationGrid, QuantizedWeight
from quant_core.errors import InternalError
from quant_core.export.kernels.input_layout import AS_IT_IS, InputLayout, input_layout
from quant_core.export.patterns.block_patterns import write_blocks
from quant_core.export.patterns.code_images import write_code_convolution, write_repeated
from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.export.patterns.weight_patterns import write_float, write_qdq
from quant_core.export.placement.code_movers import fills
from quant_core.export.placement.forms import Placement
from quant_core.export.placement.guards import MOVED_PAST
from quant_core.export.storage.half_types import half_types, store_in_half, store_spread
from quant_core.export.storage.held_back import Exported, without_large
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.target import Target
from quant_core.export.writing.assembly import assemble
from quant_core.export.writing.copying import copy_node
from quant_core.export.writing.file_tensors import FileTensors
from quant_core.export.writing.float_averages import convolve_averages
from quant_core.export.writing.float_swish import fuse_swish
from quant_core.export.writing.integer_biases import IntegerBiases
from quant_core.export.writing.layer_patterns import LayerPatterns
from quant_core.export.writing.norms_apart import keep_norms_apart
from quant_core.export.writing.opset import at_opset, lower_opset, opset_of
from quant_core.export.writing.whole_constants import read_constants_directly
from quant_core.ingest.layer import Layer
from quant_core.ingest.subgraphs import names_inside

_TYPED = 21
"""Opset from which QuantizeLinear names the type of its codes, which onnxruntime forgets when it changes codes."""


def export_model(
    model: ir.Model,
    layers: Sequence[Layer],
    weights: Mapping[str, QuantizedWeight],
    placement: Placement,
    grids: Mapping[str, ActivationGrid],
    target: Target = ORT_CPU,
) -> onnx.ModelProto:
    """Write the quantized model.

    Args:
        model: The normalised float model; left as it is.
        layers: Its layers.
        weights: Layer name -> codes and scales, for every layer that is not float.
        placement: How each layer runs and which tensors are rounded.
        grids: Tensor name -> grid, for every point of the placement.
        target: The runtime.

    Returns:
        The model as a protobuf message.
    """
    return export_parts(model, layers, weights, placement, grids, target).whole()


def export_parts(
    model: ir.Model,
    layers: Sequence[Layer],
    weights: Mapping[str, QuantizedWeight],
    placement: Placement,
    grids: Mapping[str, ActivationGrid],
    target: Target = ORT_CPU,
) -> Exported:
    """Write the quantized model as `export_model` does, but for the data of large tensors that stay as they are."""
    opset = target.opset({width for weight in weights.values() for width in weight.widths})
    proto, held_back = without_large(model)
    proto = at_opset(proto, opset)
    if target.exact_opset:
        proto = lower_opset(proto, opset)
    looking_up = (layer for layer in layers if placement.forms[layer.name] == "gather")
    read_constants_directly(proto, model, {use.node for layer in looking_up for use in layer.uses})
    layouts = {
        layer.name: input_layout(layer, model)
        for layer in layers
        if target.lays_out_inputs and placement.forms[layer.name] == "static"
    }
    quantized = _Exporter(proto, layers, weights, placement, grids, target, layouts).export()
    if target.norms_apart:
        keep_norms_apart(quantized, model)
    if target.convolves_averages:
        convolve_averages(quantized, model)
    if target.fuses_swish:
        fuse_swish(quantized)
    if target.halves:
        store_spread(quantized, model.meta.get(SPREAD, {}))
    store_in_half(quantized, half_types(model, halves=target.halves))
    # Codes bear the name of the weight that they take the place of.
    waiting = {tensor.name for tensor in quantized.graph.initializer if not tensor.raw_data}
    return Exported(quantized, {name: tensor for name, tensor in held_back.items() if name in waiting})


class _Exporter:
    def __init__(
        self,
        proto: onnx.ModelProto,
        layers: Sequence[Layer],
        weights: Mapping[str, QuantizedWeight],
        placement: Placement,
        grids: Mapping[str, ActivationGrid],
        target: Target,
        layouts: Mapping[str, InputLayout],
    ) -> None:
        self.proto = proto
        self.target = target
        self.layouts = layouts  # layer -> how it reads its input
        self.weights = dict(weights)
        self.placement = placement
        self.grids = grids
        self.layers: dict[str, list[Layer]] = {}  # node -> the layers it reads; two at recurrent nodes
        for layer in layers:
            for use in layer.uses:
                self.layers.setdefault(use.node, []).append(layer)
        self.opset = opset_of(proto)
        graph = proto.graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        for weight in weights.values():
            if weight.bias is not None:
                bias = onnx.numpy_helper.from_array(weight.bias.values, weight.bias.name)
                self.initializers[weight.bias.name] = bias
        self.biases = IntegerBiases(graph, self.layers, placement, grids, self.initializers)
        self.writer = GraphWriter(_names(graph, self.initializers), target.storage, halves=target.halves)
        self.tensors = FileTensors(graph, placement, grids, target, self.writer)
        self.patterns = LayerPatterns(self.writer, self.tensors, weights)
        self.ready: dict[str, str] = {}  # layer -> its weight as operators read it
        quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
        self.moved = {
            node.name
            for node in graph.node
            if node.op_type in MOVED_PAST and len(node.output) == 1 and node.output[0] not in quantized
        }
        self.kept: dict[str, tuple[str, ...]] = {}  # dequantized by a kept part -> its scale and zero point

    def export(self) -> onnx.ModelProto:
        graph = self.proto.graph
        for value in graph.input:
            if self.placement.is_rounded(value.name) and self._is_read_as_it_is(value.name):
                self.tensors.round(value.name, value.name)
        for node in graph.node:
            self._write(node)
        return assemble(self.proto, self.writer, self.initializers, self.target)

    def _is_read_as_it_is(self, image: str) -> bool:
        """Whether anything reads an input in another way than by steps, for which it is rounded once laid out."""
        reading = [node for node in self.proto.graph.node if image in node.input]
        layouts = [
            self.layouts.get(each.name, AS_IT_IS)
            for node in reading
            for each in self.layers.get(node.name, [])
        ]
        return (
            image in self.tensors.outputs or len(layouts) < len(reading) or any(x.step == 1 for x in layouts)
        )

    def _write(self, node: onnx.NodeProto) -> None:
        layers = self.layers.get(node.name)
        if node.name in self.placement.absorbed:
            # The consumer of the grid sees this tensor; its producer now writes it.
            self.tensors.finish(node.output[0], self.tensors.raw.get(node.input[0], node.input[0]))
        elif layers is not None:
            self._write_layer(node, layers)
        elif node.output and node.output[0] in self.placement.joined:
            codes = [self.tensors.codes[name] for name in node.input]
            self.tensors.codes[node.output[0]] = self.writer.node("Concat", codes, axis=1)
        elif node.name in self.placement.convolved:
            self._write_convolved(node)
        elif node.output and node.output[0] in self.placement.aliases and self.target.rounding == "kernels":
            self._move(node)
        elif node.op_type == "Identity" and self._is_left_out(node):
            self.tensors.finish(node.output[0], node.input[0])
        elif node.name in self.moved and node.input[0] in self.kept:
            self._round_again(node)
        elif node.name in self.placement.float_pools:
            source = self.tensors.read(node.input[0])
            if node.op_type == "MaxPool" and self.placement.is_rounded(node.input[0]):
                source = self.writer.node("LeakyRelu", [source], alpha=1.0)
            self._emit(node, [source], guarded=True)
        else:
            self._emit(node, [self.tensors.read(name) for name in node.input])
            self._note_kept(node)

    def _write_convolved(self, node: onnx.NodeProto) -> None:
        """Write a node that is no layer as a convolution of codes."""
        name = node.output[0]
        raw = self.tensors.raw_name(name)
        image = self.tensors.read_channels(node.input[0], self.placement.convolved[node.name])
        constants = [onnx.numpy_helper.to_array(self.initializers[each]) for each in node.input[1:]]
        write_code_convolution(self.writer, node, image, raw, constants)
        self.tensors.finish(name, raw)

    def _note_kept(self, node: onnx.NodeProto) -> None:
        """Remember the signed grid of what a kept DequantizeLinear writes, in files that type their rounding."""
        grid = tuple(node.input[1:3])
        if node.op_type == "DequantizeLinear" and self.opset >= _TYPED and len(grid) == 2:
            scale, zero_point = map(self.initializers.get, grid)
            if scale and zero_point and not scale.dims and zero_point.data_type == onnx.TensorProto.INT8:
                self.kept[node.output[0]] = grid

    def _is_left_out(self, node: onnx.NodeProto) -> bool:
        """Whether those that read an Identity can read what it reads, which bears its own name in the file."""
        (source,), (name,) = node.input, node.output
        return name not in self.tensors.outputs and self.tensors.read(source) == source

    def _move(self, node: onnx.NodeProto) -> None:
        """Copy a node that moves values, for codes; what it fills up with is the code of zero."""
        inputs = [self.tensors.codes[node.input[0]], *map(self.tensors.read, node.input[1:])]
        modes = [attribute.s.decode() for attribute in node.attribute if attribute.name == "mode"]
        if fills(node.op_type, modes[0] if modes else "constant"):
            _, zero_point = self.tensors.grid_constants(node.output[0])
            inputs = [*inputs[:2], zero_point, *inputs[3:]]
        times = self.placement.repeated.get(node.name)
        if times is not None and self.target.lays_out_inputs:
            outputs = [write_repeated(self.writer, node, inputs[0], times)]
        else:
            outputs = [self.writer.fresh() if name else "" for name in node.output]
            self._copy(node, inputs, outputs)
        self.tensors.codes |= dict(zip(node.output, outputs, strict=True))

    def _round_again(self, node: onnx.NodeProto) -> None:
        """Copy a node that moves values of a kept signed grid, and round them to the same codes.

        onnxruntime would add such rounding itself, of a type that it then contradicts (1.31).
        """
        (name,), grid = node.output, self.kept[node.input[0]]
        moved = self._copy(node, [self.tensors.read(each) for each in node.input], [self.writer.fresh()])
        raw = self.tensors.raw_name(name)
        codes = self.writer.node("QuantizeLinear", [moved, *grid])
        self.writer.node("DequantizeLinear", [codes, *grid], [raw])
        self.tensors.finish(name, raw)
        self.kept[name] = grid

    def _write_layer(self, node: onnx.NodeProto, layers: Sequence[Layer]) -> None:
        layer = layers[0]
        form = self.placement.forms[layer.name]
        if form == "dynamic":
            self.patterns.write_dynamic(node, layer)
        elif form == "block":
            self.patterns.write_block(node, layer)
        elif form == "gather":
            self.patterns.write_gather(node, layer)
        else:
            layout = self.layouts.get(layer.name, AS_IT_IS)
            first, *others = node.input
            operands = [self.tensors.read_laid_out(first, layout), *map(self.tensors.read, others)]
            if form == "static":
                operands[1] = self._stored_weight(layer)
                has_bias = len(operands) > 2 and operands[2] != ""
                if has_bias and self.target.integer_bias and not self.biases.is_requantized(node.output[0]):
                    operands[2] = self.biases.write(self.writer, node, self.weights[layer.name])
            for each in layers:
                if self.placement.forms[each.name] in {"weight_only", "wide"}:
                    operands[self._operand(node, each)] = self._stored_weight(each)
            self._emit(node, operands, guarded=layer.name in self.placement.guarded, layout=layout)

    def _emit(
        self,
        node: onnx.NodeProto,
        inputs: list[str],
        *,
        guarded: bool = False,
        layout: InputLayout = AS_IT_IS,
    ) -> None:
        """Copy a node, for an input in that layout, then round those of its outputs that are to be rounded."""
        outputs = [self.tensors.raw_name(name) for name in node.output]
        inner = self.writer.fresh() if guarded else outputs[0]
        self._copy(node, inputs, [inner, *outputs[1:]])
        layout.change(self.writer.nodes[-1])
        if guarded:
            # onnxruntime fuses this into a layer, whose float weights would be quantized at load without it.
            self.writer.node("LeakyRelu", [inner], outputs[:1], alpha=1.0)
        for name, raw in zip(node.output, outputs, strict=True):
            self.tensors.finish(name, raw)

    def _copy(self, node: onnx.NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> str:
        self.writer.nodes.append(copy_node(node, inputs, outputs, self.opset))
        return outputs[0]

    def _stored_weight(self, layer: Layer) -> str:
        """The weight as the operator reads it; a shared weight is written once."""
        if layer.name not in self.ready:
            weight = self.weights[layer.name]
            if self.placement.forms[layer.name] == "static":
                weight = self.weights[layer.name] = self.biases.with_room(layer, weight)
                self.ready[layer.name] = write_qdq(
                    self.writer, layer, weight, self.layouts.get(layer.name, AS_IT_IS)
                )
            else:
                write = write_blocks if self.target.blocks else write_float
                self.ready[layer.name] = write(self.writer, layer, weight)
        return self.ready[layer.name]

    def _operand(self, node: onnx.NodeProto, layer: Layer) -> int:
        for use in layer.uses:
            if use.node == node.name:
                return use.operand
        raise InternalError(f"node {node.name} is not a use of layer {layer.name}")


def _names(graph: onnx.GraphProto, initializers: Iterable[str]) -> set[str]:
    """Every name that is taken, in bodies too."""
    found = (
        {value.name for value in (*graph.input, *graph.output)} | set(initializers) | names_inside(graph.node)
    )
    return found.union(*((*node.input, *node.output, node.name) for node in graph.node))
