"""Graphs whose samples are whole runs: an axis in front of every input and output, put there and taken away again.

A streaming network keeps its state in inputs like `[2, batch, 64]`, and may ask for a sampling rate, a single number:
no axis counts samples in all inputs. With one axis more in front, of size 1, each sample is one run of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_integers

_AXES_AS_INPUT = 13
_INNER = "/run"


def counts_runs(model: ir.Model, ranks: Mapping[str, int]) -> bool:
    """Tell whether samples are whole runs.

    Args:
        model: The user's graph.
        ranks: Axes of the samples by name.

    Returns:
        Whether those of every graph input have one axis more than the graph declares.
    """
    inputs = _fed(model.graph)
    return bool(inputs) and all(
        value.shape is not None and ranks.get(value.name or "") == len(value.shape) + 1 for value in inputs
    )


def add_run_axis(model: ir.Model) -> None:
    """Put an axis of size 1 in front of every input and output; their names stay.

    Args:
        model: A graph whose inputs have shapes; changed.
    """
    graph = model.graph
    for outer in reversed(_fed(graph)):
        inner = ir.Value(name=f"{outer.name}{_INNER}", type=outer.type, shape=outer.shape)
        outer.replace_all_uses_with(inner)
        outer.shape = None if outer.shape is None else ir.Shape([1, *outer.shape.dims])
        _turn(graph, "Squeeze", outer, inner)
    for place, inner in enumerate(list(graph.outputs)):
        shape = None if inner.shape is None else ir.Shape([1, *inner.shape.dims])
        outer = ir.Value(name=inner.name, type=inner.type, shape=shape)
        inner.name = f"{inner.name}{_INNER}"
        graph.outputs[place] = outer
        _turn(graph, "Unsqueeze", inner, outer)


def remove_run_axis(model: ir.Model) -> None:
    """Take the first axis of every input and output away, with the nodes that put it there where they are still found.

    Args:
        model: A graph made of one that `add_run_axis` changed; changed.
    """
    graph = model.graph
    for outer in _fed(graph):
        longer = ir.Value(name=f"{outer.name}{_INNER}", type=outer.type, shape=outer.shape)
        outer.shape = _shorter(outer.shape)
        turned = [node for node in outer.consumers() if _turns(node, "Squeeze")]
        for use in outer.uses():
            if use.node not in turned:
                use.node.replace_input_with(use.idx, longer)
        for squeeze in turned:
            squeeze.outputs[0].replace_all_uses_with(outer)
            _remove(squeeze)
        if longer.uses():
            _turn(graph, "Unsqueeze", outer, longer)
    for place, outer in enumerate(list(graph.outputs)):
        node, name, shape = outer.producer(), outer.name, _shorter(outer.shape)
        outer.name = f"{name}{_INNER}"
        if node is not None and _turns(node, "Unsqueeze") and not outer.uses():
            inner = node.inputs[0]
            assert inner is not None
            graph.outputs[place] = inner
            _remove(node)
        else:
            inner = ir.Value()
            graph.outputs[place] = inner
            _turn(graph, "Squeeze", outer, inner)
        inner.name, inner.type, inner.shape = name, outer.type, shape


def _fed(graph: ir.Graph) -> list[ir.Value]:
    return [value for value in graph.inputs if value.name not in graph.initializers]


def _shorter(shape: ir.Shape | None) -> ir.Shape | None:
    return None if shape is None else ir.Shape(shape.dims[1:])


def _turn(graph: ir.Graph, kind: str, source: ir.Value, result: ir.Value) -> None:
    """Add a node over the first axis: in front of all others where it reads a graph input, else behind them."""
    axes = ir.tensor([0], ir.DataType.INT64)
    if graph.opset_imports.get("", 0) < _AXES_AS_INPUT:
        nodes = [ir.node(kind, [source], {"axes": [0]}, outputs=[result])]
    else:
        first = ir.node("Constant", [], {"value": axes})
        first.outputs[0].name = f"{source.name}{_INNER}/axes"
        nodes = [first, ir.node(kind, [source, first.outputs[0]], outputs=[result])]
    if source.is_graph_input() and len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)


def _turns(node: ir.Node, kind: str) -> bool:
    if node.op_type != kind or node.domain:
        return False
    told = node.attributes.get_ints("axes", None)
    return (constant_integers(node.inputs[1]) if len(node.inputs) > 1 else told) == [0]


def _remove(node: ir.Node) -> None:
    """Remove a node, and its axes where nothing else reads them."""
    graph, axes = node.graph, node.inputs[1:]
    assert isinstance(graph, ir.Graph)
    graph.remove(node, safe=True)
    for value in axes:
        if value is not None and value.is_initializer() and not value.uses() and value.name is not None:
            del graph.initializers[value.name]
