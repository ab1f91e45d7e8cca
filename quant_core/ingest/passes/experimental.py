"""Write the experimental operators of early ONNX, which onnxruntime still runs, in operators of the standard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

Add = Callable[..., ir.Value]

_TO_THE_END = 2**31 - 1


class SpellOutExperimental(ir.passes.InPlacePass):
    """Rewrite Affine, Crop, ImageScaler, ParametricSoftplus, Scale and ScaledTanh.

    Converters from CoreML, Caffe2 and Keras of 2018 wrote them. Neither the standard nor any converter of opsets
    knows them; onnxruntime kept them.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place, in subgraphs too.

        Args:
            model: A model of any opset; onnxruntime runs these operators up to opset 9.

        Returns:
            The same model.
        """
        found = [
            node
            for node in ir.traversal.RecursiveGraphIterator(model.graph)
            if node.op_type in _SPELLINGS and node.domain == ""
        ]
        for node in found:
            _spell_out(node)
        return ir.passes.PassResult(model, modified=bool(found))


def _spell_out(node: ir.Node) -> None:
    source = node.inputs[0]
    assert source is not None  # it is required
    assert node.graph is not None
    prefix = node.name or node.outputs[0].name
    kind = source.dtype or ir.DataType.FLOAT
    nodes: list[ir.Node] = []

    def add(op: str, *inputs: ir.Value | np.ndarray | float, **attributes: Any) -> ir.Value:
        values = [each if isinstance(each, ir.Value) else constant(each) for each in inputs]
        made = ir.node(op, values, attributes, name=f"{prefix}/{op}_{len(nodes)}")
        made.outputs[0].name = made.name
        nodes.append(made)
        return made.outputs[0]

    def constant(value: np.ndarray | float) -> ir.Value:
        return add("Constant", value=ir.tensor(np.asarray(value, kind.numpy())))

    result = _SPELLINGS[node.op_type](node, source, add)
    old = node.outputs[0]
    result.type, result.shape = old.type, old.shape
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], nodes, [old], [result])


def _affine(node: ir.Node, source: ir.Value, add: Add) -> ir.Value:
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 0.0)
    return add("Add", add("Mul", source, alpha), beta)


def _scale(node: ir.Node, source: ir.Value, add: Add) -> ir.Value:
    return add("Mul", source, node.attributes.get_float("scale", 1.0))


def _image_scaler(node: ir.Node, source: ir.Value, add: Add) -> ir.Value:
    scaled = _scale(node, source, add)
    return add("Add", scaled, np.array(node.attributes.get_floats("bias")).reshape(1, -1, 1, 1))


def _crop(node: ir.Node, source: ir.Value, add: Add) -> ir.Value:
    left, top, right, bottom = node.attributes.get_ints("border")
    kept = node.attributes.get_ints("scale", None)
    starts = [top, left]
    if kept:
        ends = [start + length for start, length in zip(starts, kept, strict=True)]
    else:
        ends = [-border if border else _TO_THE_END for border in (bottom, right)]
    return add("Slice", source, axes=[2, 3], starts=starts, ends=ends)


def _scaled_tanh(node: ir.Node, source: ir.Value, add: Add) -> ir.Value:
    alpha, beta = (node.attributes.get_float(name) for name in ("alpha", "beta"))
    return add("Mul", add("Tanh", add("Mul", source, beta)), alpha)


def _parametric_softplus(node: ir.Node, source: ir.Value, add: Add) -> ir.Value:
    alpha, beta = (node.attributes.get_float(name) for name in ("alpha", "beta"))
    return add("Mul", add("Softplus", add("Mul", source, beta)), alpha)


_SPELLINGS: dict[str, Callable[[ir.Node, ir.Value, Add], ir.Value]] = {
    "Affine": _affine,
    "Crop": _crop,
    "ImageScaler": _image_scaler,
    "ParametricSoftplus": _parametric_softplus,
    "Scale": _scale,
    "ScaledTanh": _scaled_tanh,
}
"""Operator -> what appends the same to the graph, from the node and its input."""
