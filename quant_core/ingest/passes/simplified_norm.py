"""Write the root-mean-square norm that onnxruntime adds to the standard's domain in operators of the standard."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

_AXES_AS_INPUT = 18  # opset


class SpellOutSimplifiedNorm(ir.passes.InPlacePass):
    """Rewrite SimplifiedLayerNormalization as `x / sqrt(mean(x ** 2) + epsilon) * scale`.

    Files of language models hold it; neither the checker nor shape inference knows it. onnxruntime puts these nodes
    together again.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place, in subgraphs too."""
        version = model.graph.opset_imports.get("", _AXES_AS_INPUT)
        found = [
            node
            for node in ir.traversal.RecursiveGraphIterator(model.graph)
            if node.op_type == "SimplifiedLayerNormalization" and node.domain == ""
        ]
        for node in found:
            _spell_out(node, version)
        return ir.passes.PassResult(model, modified=bool(found))


def _spell_out(node: ir.Node, version: int) -> None:
    source, scale = node.inputs[:2]
    assert source is not None  # both are required
    assert scale is not None
    assert node.graph is not None
    prefix = node.name or node.outputs[0].name
    kind = scale.dtype or source.dtype or ir.DataType.FLOAT
    nodes: list[ir.Node] = []

    def add(op: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        made = ir.node(op, inputs, attributes, name=f"{prefix}/{op}_{len(nodes)}")
        made.outputs[0].name = made.name
        nodes.append(made)
        return made.outputs[0]

    def number(value: float) -> ir.Value:
        return add("Constant", value=ir.tensor(value, dtype=kind))

    squares = add("Pow", source, number(2.0))
    axes = _axes(node)
    if version < _AXES_AS_INPUT:
        mean = add("ReduceMean", squares, axes=axes)
    else:
        mean = add("ReduceMean", squares, add("Constant", value=ir.tensor(np.array(axes))))
    root = add("Sqrt", add("Add", mean, number(node.attributes.get_float("epsilon", 1e-5))))
    results = [add("Mul", add("Div", source, root), scale)]
    if len(node.outputs) > 1:
        results.append(add("Reciprocal", root))
    outputs = node.outputs[: len(results)]
    for value, result in zip(outputs, results, strict=True):
        result.type, result.shape = value.type, value.shape
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], nodes, outputs, results)


def _axes(node: ir.Node) -> list[int]:
    """The axes that are normalized, counted from the last."""
    first = node.attributes.get_int("axis", -1)
    source, scale = node.inputs[:2]
    assert source is not None  # both are required
    assert scale is not None
    if first < 0:
        return list(range(first, 0))
    if source.shape is not None:
        return list(range(first - len(source.shape), 0))
    # The scale has these axes, behind ones that may be put in front.
    tensor = ir.convenience.get_const_tensor(scale)
    shape = list(scale.shape or ()) if tensor is None else list(tensor.shape)
    while shape[:1] == [1]:
        shape = shape[1:]
    return list(range(-max(1, len(shape)), 0))
