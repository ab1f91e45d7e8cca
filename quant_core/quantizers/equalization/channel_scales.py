"""Scale channels of a graph: divide tensors by constants, and make up for it in the weights that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from quant_core.codes import SPREAD
from quant_core.codes.number_formats import half_nearest
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.ingest.layer import Layer
from quant_core.quantizers.equalization.channel_group import ChannelGroup, Fold

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

    @classmethod
    def stored(cls, group: ChannelGroup, values: npt.NDArray[np.float64]) -> Self:
        """Give factors of which files hold what they hold of them in float16.

        Args:
            group: The group.
            values: About the factors.

        Returns:
            The nearest that are float16 numbers where they are multiplied with, and else have such reciprocals.
        """
        shares = values if group.behind else 1 / values
        halves = half_nearest(shares.astype(np.float32)).astype(np.float64)
        if not halves.all():  # beside much larger ones
            return cls(group, values)
        return cls(group, halves if group.behind else 1 / halves)


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
    copy.meta.update(model.meta)
    by_name = {layer.name: layer for layer in layers}
    nodes = {str(node.name): node for node in copy.graph}
    for found in scales:
        for name in found.group.readers:
            layer = by_name[name]
            weight = stored_tensor(copy, layer.weight).numpy().astype(np.float64)
            _set(copy, layer.weight, multiplied(layer, weight, found.values))
        for fold in found.group.folds:
            array = stored_tensor(copy, fold.name).numpy().astype(np.float64)
            if fold.spread:
                _spread(copy, nodes[fold.spread], fold, array, found.values)
                continue
            shape = [1] * array.ndim
            shape[fold.axis] = -1
            end = fold.start + array.shape[fold.axis]
            _set(copy, fold.name, array / found.values[fold.start : end].reshape(shape))
        if found.group.behind:
            _insert_behind(copy.graph, found)
        elif found.group.inserted:
            _insert(copy.graph, [nodes[by_name[name].uses[0].node] for name in found.group.readers], found)
    return copy


def with_inputs(layers: Sequence[Layer], scales: Sequence[ChannelScales]) -> tuple[Layer, ...]:
    """Name the tensors that layers read and write after `with_scales`.

    Args:
        layers: The layers of the float model.
        scales: The factors.

    Returns:
        The same layers of the scaled model.
    """
    before = {name for found in scales if found.group.inserted for name in found.group.readers}
    behind = {name for found in scales if found.group.behind for name in found.group.tensors}

    def renamed(layer: Layer) -> Layer:
        if layer.name not in before and behind.isdisjoint(layer.outputs):
            return layer
        (use,) = layer.uses
        read = use.input + _SUFFIX if layer.name in before else use.input
        written = use.output + _SUFFIX if use.output in behind else use.output
        return replace(layer, uses=(replace(use, input=read, output=written),))

    return tuple(map(renamed, layers))


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


def _set(model: ir.Model, name: str, values: npt.NDArray[np.float64]) -> None:
    value = model.graph.initializers[name]
    assert value.const_value is not None
    array = np.ascontiguousarray(values, dtype=value.const_value.dtype.numpy())
    array.flags.writeable = False
    value.const_value = ir.Tensor(array, name=name)


def _spread(
    model: ir.Model,
    node: ir.Node,
    fold: Fold,
    array: npt.NDArray[np.float64],
    factors: npt.NDArray[np.float64],
) -> None:
    """Give a node a constant of its own, divided channel by channel."""
    shares = 1 / factors.reshape(-1, *[1] * (-1 - fold.axis))
    constant = _constant(model.graph, f"{fold.name}@{node.name}", array * shares)
    if array.size == 1:
        whole = np.float32(array.reshape(()))
        spread = {str(constant.name): (whole, shares.astype(np.float32))}
        model.meta[SPREAD] = {**model.meta.get(SPREAD, {}), **spread}
    position = next(k for k, value in enumerate(node.inputs) if value is not None and value.name == fold.name)
    node.replace_input_with(position, constant)


def _constant(graph: ir.Graph, name: str, array: npt.NDArray[np.float64]) -> ir.Value:
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(array.shape),
        const_value=ir.Tensor(np.ascontiguousarray(array, dtype=np.float32), name=name),
    )
    graph.register_initializer(value)
    return value


def _insert_behind(graph: ir.Graph, found: ChannelScales) -> None:
    (name,) = found.group.tensors
    maker = next(node for node in graph if any(value.name == name for value in node.outputs))
    (value,) = maker.outputs
    factors = _constant(graph, f"{name}{_SUFFIX}_by", found.values.reshape(-1, *[1] * found.group.trailing))
    product = ir.node(
        "Mul",
        [value, factors],
        name=f"{name}{_SUFFIX}_back",
        outputs=[ir.Value(name=name, type=value.type, shape=value.shape)],
    )
    for node, position in tuple(value.uses()):
        if node is not product:
            node.replace_input_with(position, product.outputs[0])
    value.name = f"{name}{_SUFFIX}"
    graph.insert_after(maker, product)


def _insert(graph: ir.Graph, readers: Sequence[ir.Node], found: ChannelScales) -> None:
    source = readers[0].inputs[0]
    assert source is not None
    name = f"{source.name}{_SUFFIX}"
    factors = _constant(graph, f"{name}_by", 1 / found.values.reshape(-1, *[1] * found.group.trailing))
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
