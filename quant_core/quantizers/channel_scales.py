"""Scale channels of a graph: divide tensors by constants, and make up for it in the weights that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quant_core.ingest.layer import Layer
from quant_core.quantizers.channel_groups import ChannelGroup

_SUFFIX = "@scaled"


@dataclass(frozen=True, eq=False)
class ChannelScales:
    """Factors of one group.

    Attributes:
        group: The group.
        values: `[channels]`, positive; the tensors are divided by them.
    """

    group: ChannelGroup
    values: npt.NDArray[np.float64]


def with_scales(model: ir.Model, layers: Sequence[Layer], scales: Sequence[ChannelScales]) -> ir.Model:
    """Give a copy of a model that computes the same with scaled channels.

    `W2 f(W1 x + b) = (W2 S) f(S^-1 W1 x + S^-1 b)` for f with `f(a x) = a f(x)`, a > 0 (Nagel et al., arXiv:1906.04721,
    equations 5 to 8); where nothing takes in `S^-1`, a product by it is inserted (Xiao et al., arXiv:2211.10438,
    equation 3).

    Args:
        model: The normalised graph; left as it is.
        layers: Its layers.
        scales: Factors by group.

    Returns:
        The scaled copy; layers keep their names and weights.
    """
    copy = model.clone()
    by_name = {layer.name: layer for layer in layers}
    nodes = {str(node.name): node for node in copy.graph}
    for found in scales:
        for name in found.group.readers:
            layer = by_name[name]
            _set(copy, layer.weight, multiplied(layer, _array(copy, layer.weight), found.values))
        for fold in found.group.folds:
            array = _array(copy, fold.name)
            shape = [1] * array.ndim
            shape[fold.axis] = -1
            _set(copy, fold.name, array / found.values.reshape(shape))
        if found.group.inserted:
            _insert(copy.graph, [nodes[by_name[name].uses[0].node] for name in found.group.readers], found)
    return copy


def with_inputs(layers: Sequence[Layer], scales: Sequence[ChannelScales]) -> tuple[Layer, ...]:
    """Name the tensors that layers read after `with_scales`.

    Args:
        layers: The layers of the float model.
        scales: The factors.

    Returns:
        The same layers of the scaled model.
    """
    inserted = {name for found in scales if found.group.inserted for name in found.group.readers}
    return tuple(
        replace(layer, uses=(replace(layer.uses[0], input=layer.uses[0].input + _SUFFIX),))
        if layer.name in inserted
        else layer
        for layer in layers
    )


def multiplied(
    layer: Layer, weight: npt.NDArray[np.floating], factors: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Multiply what a weight takes from each input channel.

    Args:
        layer: A Conv, ConvTranspose, Gemm or right-hand MatMul.
        weight: Its weight.
        factors: One factor for each channel the layer reads.

    Returns:
        The product in the weight's shape, float64.
    """
    weight = weight.astype(np.float64)
    if layer.op == "Conv":
        groups, inputs = layer.group, layer.shape[1]
        rows = weight.reshape(groups, -1, inputs, *layer.shape[2:])
        by_group = factors.reshape(groups, 1, inputs, *[1] * (len(layer.shape) - 2))
        return np.reshape(rows * by_group, layer.shape)
    if layer.op == "Gemm" and layer.axis == 0:
        return weight * factors
    return weight * factors.reshape(-1, *[1] * (weight.ndim - 1))


def _array(model: ir.Model, name: str) -> npt.NDArray[np.float64]:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None  # groups hold constants alone
    return tensor.numpy().astype(np.float64)


def _set(model: ir.Model, name: str, values: npt.NDArray[np.float64]) -> None:
    value = model.graph.initializers[name]
    assert value.const_value is not None
    array = np.ascontiguousarray(values, dtype=value.const_value.dtype.numpy())
    array.flags.writeable = False
    value.const_value = ir.Tensor(array, name=name)


def _insert(graph: ir.Graph, readers: Sequence[ir.Node], found: ChannelScales) -> None:
    source = readers[0].inputs[0]
    assert source is not None
    name = f"{source.name}{_SUFFIX}"
    factors = ir.Value(
        name=f"{name}_by",
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(found.values.shape),
        const_value=ir.Tensor((1 / found.values).astype(np.float32), name=f"{name}_by"),
    )
    graph.register_initializer(factors)
    product = ir.node(
        "Mul",
        [source, factors],
        name=name,
        outputs=[ir.Value(name=name, type=source.type, shape=source.shape)],
    )
    first = next(node for node in graph if node in readers)
    graph.insert_before(first, product)
    for node in readers:
        node.replace_input_with(0, product.outputs[0])
