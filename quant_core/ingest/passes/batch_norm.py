"""Fold what scales and shifts channels into the weights of the layer in front of it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor, own_constant
from quant_core.ingest.passes.channel_affine import ChannelAffine, channel_affine

_FOLDABLE = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


class FoldBatchNorm(ir.passes.InPlacePass):
    """Rewrite `BN(layer(x))` as one layer; after MatMul, which has no bias, an Add remains.

    With factor s and offset t of each output channel: `W' = W * s` and `b' = b * s + t` (Jacob et al., 2018, section
    3.2). Mul, Add, Sub and Div by constants behind a convolution, which some converters write instead, are folded
    the same way. A layer is only touched if nothing else reads its output or its weight; any other batch
    normalization stays a node of its own.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place, once constants are initializers."""
        folded = [_fold(node) for node in list(model.graph)]
        return ir.passes.PassResult(model, modified=any(folded))


def _fold(node: ir.Node) -> bool:
    affine = channel_affine(node)
    layer = affine.source.producer() if affine is not None else None
    if affine is None or layer is None or layer.domain or layer.op_type not in _FOLDABLE:
        return False
    source, factor = affine.source, affine.factor
    if len(source.uses()) != 1 or source.is_graph_output() or layer.graph is not node.graph:
        return False
    if layer.op_type == "MatMul" and not _is_matrix_product(layer, source):
        return False
    weight = layer.inputs[1]
    tensor = own_constant(weight)
    if weight is None or tensor is None:
        return False
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    bias_values = _bias_values(layer, bias, factor.size)
    if bias_values is None:
        return False
    scaled = _scale_channels(layer, tensor.numpy().astype(np.float64), factor)
    shifted = bias_values * factor + affine.offset
    if scaled is None or not _fits(scaled, tensor.dtype) or not _fits(shifted, tensor.dtype):
        return False
    weight.const_value = _tensor(scaled, tensor.dtype, weight.name)
    if layer.op_type == "MatMul":
        _replace_by_add(node, source, _bias_value(node, affine, shifted, tensor.dtype))
        return True
    if bias is not None or shifted.any():
        _set_bias(layer, _bias_value(node, affine, shifted, tensor.dtype))
    _replace(node, layer)
    return True


def _is_matrix_product(layer: ir.Node, result: ir.Value) -> bool:
    """Tell whether output channels are axis 1 of the result, where batch normalization looks for them."""
    weight = layer.inputs[1]
    return (
        result.shape is not None
        and len(result.shape) == 2
        and weight is not None
        and weight.const_value is not None
        and len(weight.const_value.shape) == 2
    )


def _bias_values(layer: ir.Node, bias: ir.Value | None, channels: int) -> np.ndarray | None:
    """Give the layer's bias per channel, float64, or None if it is not constant per channel."""
    if bias is None:
        return np.zeros(channels)
    tensor = constant_tensor(bias)
    if tensor is None:
        return None
    values = tensor.numpy().astype(np.float64)
    if layer.op_type == "Gemm":
        values = values * layer.attributes.get_float("beta", 1.0)
    per_channel = values.size == 1 or (values.size == channels and values.shape[-1] == channels)
    return np.broadcast_to(values.reshape(-1), (channels,)) if per_channel else None


def _scale_channels(layer: ir.Node, weight: np.ndarray, factor: np.ndarray) -> np.ndarray | None:
    """Multiply each output channel of a weight by its factor; None if the channels do not match."""
    if layer.op_type == "ConvTranspose":
        # Weight is (inputs, outputs / groups, kernel...); outputs run over groups first.
        groups = layer.attributes.get_int("group", 1)
        grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        if groups * weight.shape[1] != factor.size:
            return None
        factors = factor.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        return np.reshape(grouped * factors, weight.shape)
    columns = layer.op_type == "MatMul" or (
        layer.op_type == "Gemm" and not layer.attributes.get_int("transB", 0)
    )
    axis = 1 if columns else 0
    if weight.shape[axis] != factor.size:
        return None
    scaled: np.ndarray = np.moveaxis(np.moveaxis(weight, axis, -1) * factor, -1, axis)
    return scaled


def _fits(values: np.ndarray, dtype: ir.DataType) -> bool:
    return bool(np.isfinite(values).all()) and (
        values.size == 0 or float(np.abs(values).max()) <= float(dtype.max)
    )


def _tensor(values: np.ndarray, dtype: ir.DataType, name: str | None) -> ir.TensorProtocol:
    array = np.ascontiguousarray(values.astype(dtype.numpy()))
    # Like the tensors of a file: what several stages share is not written to.
    array.flags.writeable = False
    return ir.Tensor(array, dtype=dtype, name=name)


def _bias_value(node: ir.Node, affine: ChannelAffine, values: np.ndarray, dtype: ir.DataType) -> ir.Value:
    """Keep the new bias under the name of the node's own shift, where that is free."""
    shift, graph = affine.shift, node.graph
    assert graph is not None  # it is a node of the main graph
    name = shift.name
    if len(shift.uses()) == 1 and name is not None and not shift.is_graph_output():
        position = list(node.inputs).index(shift)
        node.replace_input_with(position, None)
        graph.initializers.pop(name)
    else:
        name = f"{node.outputs[0].name}_bias"
    value = ir.Value(
        name=name,
        type=ir.TensorType(dtype),
        shape=ir.Shape(values.shape),
        const_value=_tensor(values, dtype, name),
    )
    graph.register_initializer(value)
    return value


def _set_bias(layer: ir.Node, bias: ir.Value) -> None:
    layer.resize_inputs(3)
    layer.replace_input_with(2, bias)
    if layer.op_type == "Gemm" and "beta" in layer.attributes:
        # The old beta is part of the new bias.
        layer.attributes.pop("beta")


def _replace_by_add(norm: ir.Node, source: ir.Value, bias: ir.Value) -> None:
    assert norm.graph is not None  # it is a node of the main graph
    add = ir.node("Add", [source, bias], name=norm.name)
    ir.convenience.replace_nodes_and_values(norm.graph, norm, [norm], [add], [norm.outputs[0]], add.outputs)


def _replace(norm: ir.Node, layer: ir.Node) -> None:
    """Let the layer write the tensor that the normalization wrote, under the same name."""
    kept, result = layer.outputs[0], norm.outputs[0]
    name, dtype, shape = result.name, result.type, result.shape
    result.replace_all_uses_with(kept, replace_graph_outputs=True)
    assert norm.graph is not None  # it is a node of the main graph
    norm.graph.remove(norm, safe=True)
    kept.name, kept.type, kept.shape = name, dtype or kept.type, shape or kept.shape
