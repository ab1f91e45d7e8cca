"""Bound the work that a graph's size alone causes, before anything walks over it."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from quant_core.errors import ModelError
from quant_core.ingest.subgraphs import body_protos
from quant_core.spec.limits import limits

MAX_AXES = 256
"""Most axes of any tensor; torch computes with 64, and shape inference stores whatever a file asks for."""
USUAL_AXES = 8
"""Axes of a reshaped tensor, whose number the graph does not say."""
MAX_CALLS = 64
"""Deepest nesting of function calls."""

_Name = tuple[str, str, str]


def check_graph_size(model: onnx.ModelProto, where: str | None = None) -> None:
    """Refuse functions that call themselves, and more nodes than could be worked with.

    A function's nodes count at every call: n functions that each call the next twice are 2^n nodes. A node inside d
    subgraphs counts as (1 + d)^2, because everything that walks over a graph starts again at each subgraph. Nor may
    a few nodes make a tensor of a million axes.

    Args:
        model: The parsed file.
        where: The model file for messages.

    Raises:
        ModelError: If there are too many nodes or axes, or calls without an end.
    """
    counter = _Counter(model, where)
    total = counter.graph(model.graph.node, 0)
    most = limits().nodes
    if total > most:
        raise ModelError(
            f"the model has the weight of {total} nodes, with functions expanded and subgraphs by their depth; "
            f"{most} are allowed.",
            remedy="Give a part of the model, or export it with less control flow.",
            where=where,
        )
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    ranks |= {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.input}
    counter.ranks(model.graph.node, ranks)


class _Counter:
    def __init__(self, model: onnx.ModelProto, where: str | None) -> None:
        self.bodies = {
            (function.domain or "ai.onnx", function.name, function.overload): function
            for function in model.functions
        }
        self.where = where
        self.sizes: dict[tuple[_Name, int], int] = {}
        self.calls: list[_Name] = []

    def graph(self, nodes: Iterable[onnx.NodeProto], depth: int) -> int:
        total = 0
        for node in nodes:
            name = _name(node)
            total += self.function(name, depth) if name in self.bodies else (1 + depth) ** 2
            total += sum(self.graph(body.node, depth + 1) for body in body_protos(node))
        return total

    def function(self, name: _Name, depth: int) -> int:
        if name in self.calls or len(self.calls) >= MAX_CALLS:
            raise ModelError(
                f"function {name[1]!r} calls itself, or calls are nested more than {MAX_CALLS} deep.",
                remedy="Inline the model's functions.",
                where=self.where,
            )
        key = (name, depth)
        if key not in self.sizes:
            self.calls.append(name)
            self.sizes[key] = self.graph(self.bodies[name].node, depth)
            self.calls.pop()
        return self.sizes[key]

    def ranks(self, nodes: Iterable[onnx.NodeProto], known: dict[str, int]) -> None:
        """Bounds the axes of every tensor: Gather and Einsum can double them, and then again."""
        for node in nodes:
            given = [known.get(name, 0) for name in node.input] or [0]
            made = sum(given) if node.op_type in {"Einsum", "Gather", "GatherND"} else max(given)
            if node.op_type == "Gather":
                made -= 1
            elif node.op_type in {"Reshape", "Flatten", "Shape", "Size", "GlobalAveragePool"}:
                made = min(made, USUAL_AXES)
            elif node.op_type in {"Unsqueeze", "OneHot"}:
                made += 1
            if made > MAX_AXES:
                raise ModelError(
                    f"{node.op_type} gives a tensor of some {made} axes; {MAX_AXES} are allowed.",
                    remedy="Export the model again with a newer exporter.",
                    where=node.name or self.where,
                )
            for inner in body_protos(node):
                own = {value.name: len(value.type.tensor_type.shape.dim) for value in inner.input}
                stored = {tensor.name: len(tensor.dims) for tensor in inner.initializer}
                self.ranks(inner.node, {**known, **stored, **own})
            body = self.bodies.get(_name(node))
            if body is not None:
                inside = dict(zip(body.input, given, strict=False))
                self.ranks(body.node, inside)
                made = max([made, *(inside.get(name, 0) for name in body.output)])
            known.update(dict.fromkeys(node.output, max(made, 0)))


def _name(node: onnx.NodeProto) -> _Name:
    return (node.domain or "ai.onnx", node.op_type, node.overload)
