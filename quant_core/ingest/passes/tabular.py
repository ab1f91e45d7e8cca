"""Write what pipelines of tables do before and behind a network in operators of the standard."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

DOMAIN = "ai.onnx.ml"

Add = Callable[..., ir.Value]


class SpellOutTabular(ir.passes.InPlacePass):
    """Rewrite Scaler, Imputer, OneHotEncoder and ArrayFeatureExtractor of `ai.onnx.ml`.

    Scikit-learn's exporter writes them. Left alone is what reads or writes strings.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place; only the main graph.

        Args:
            model: A model of opset 13 or later whose constants are initializers.

        Returns:
            The same model.
        """
        found = [_spell_out(node) for node in list(model.graph) if node.domain == DOMAIN]
        return ir.passes.PassResult(model, modified=any(found))


def _spell_out(node: ir.Node) -> bool:
    spelling, graph = _SPELLINGS.get(node.op_type), node.graph
    if spelling is None:
        return False
    assert isinstance(graph, ir.Graph)  # callers walk the main graph
    prefix = node.outputs[0].name
    nodes: list[ir.Node] = []

    def add(op: str, *inputs: ir.Value | np.ndarray | None, **attributes: Any) -> ir.Value:
        values = [held(each) if isinstance(each, np.ndarray) else each for each in inputs]
        made = ir.node(op, values, attributes, name=f"{prefix}/{op}_{len(nodes)}")
        made.outputs[0].name = made.name
        nodes.append(made)
        return made.outputs[0]

    def held(array: np.ndarray) -> ir.Value:
        name = f"{prefix}/constant_{len(graph.initializers)}"
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
        )
        graph.register_initializer(value)
        return value

    result = spelling(node, add)
    if result is None:
        return False
    old = node.outputs[0]
    result.type, result.shape = old.type, old.shape
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, [old], [result])
    return True


def _scaler(node: ir.Node, add: Add) -> ir.Value:
    offset, scale = (
        np.array(node.attributes.get_floats(name, ()), np.float32) for name in ("offset", "scale")
    )
    result = add("Cast", node.inputs[0], to=ir.DataType.FLOAT)
    if offset.size:
        result = add("Sub", result, offset)
    return add("Mul", result, scale) if scale.size else result


def _imputer(node: ir.Node, add: Add) -> ir.Value | None:
    source = node.inputs[0]
    imputed = node.attributes.get_floats("imputed_value_floats", ())
    if not imputed:
        return None
    missing: float = node.attributes.get_float("replaced_value_float", 0.0)
    lacks = (
        add("IsNaN", source) if math.isnan(missing) else add("Equal", source, np.array(missing, np.float32))
    )
    return add("Where", lacks, np.array(imputed, np.float32), source)


def _one_hot(node: ir.Node, add: Add) -> ir.Value | None:
    classes = node.attributes.get_ints("cats_int64s", ())
    if not classes or not node.attributes.get_int("zeros", 1):
        return None  # strings, or an error for a number that is no class
    whole = add("Cast", node.inputs[0], to=ir.DataType.INT64)
    found = add("Equal", add("Unsqueeze", whole, np.array([-1])), np.array(classes, np.int64))
    return add("Cast", found, to=ir.DataType.FLOAT)


def _picked(node: ir.Node, add: Add) -> ir.Value | None:
    source, places = node.inputs
    assert source is not None  # both are required
    if source.shape is None or source.dtype in {None, ir.DataType.STRING}:
        return None
    picked = add("Gather", source, add("Reshape", places, np.array([-1])), axis=-1)
    return add("Unsqueeze", picked, np.array([0])) if len(source.shape) == 1 else picked


_SPELLINGS: dict[str, Callable[[ir.Node, Add], ir.Value | None]] = {
    "Scaler": _scaler,
    "Imputer": _imputer,
    "OneHotEncoder": _one_hot,
    "ArrayFeatureExtractor": _picked,
}
