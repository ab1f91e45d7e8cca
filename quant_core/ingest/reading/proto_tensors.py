"""Walk every graph, node and tensor of an ONNX protobuf without converting anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from quant_core.ingest.subgraphs import body_protos
from quant_core.spec.limits import MAX_DEPTH


@dataclass(frozen=True)
class GraphVisit:
    """One graph or local function body and how deep it is nested.

    Attributes:
        nodes: Its nodes.
        initializers: Its initializers; empty for functions.
        sparse: How many sparse tensors it holds, initializers and constants.
        depth: 0 for the main graph and for function bodies.
    """

    nodes: list[onnx.NodeProto]
    initializers: list[onnx.TensorProto]
    sparse: int
    depth: int


def walk_graphs(model: onnx.ModelProto) -> Iterator[GraphVisit]:
    """Visit the main graph, all subgraphs and all function bodies.

    Args:
        model: The parsed file.

    Yields:
        One visit a graph, parents first. Below `MAX_DEPTH` nothing is visited.
    """
    yield from _walk(model.graph, 0)
    for function in model.functions:
        nodes = list(function.node)
        yield GraphVisit(nodes, [], _sparse_constants(nodes), 0)
        yield from _walk_attributes(list(function.node), 1)


def walk_tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Visit every tensor that the file stores.

    Args:
        model: The parsed file.

    Yields:
        A name for messages, and the tensor: initializers by name, constants by the node that holds them.
    """
    for graph in walk_graphs(model):
        for tensor in graph.initializers:
            yield tensor.name, tensor
        for node in graph.nodes:
            for attribute in node.attribute:
                held = [attribute.t] if attribute.HasField("t") else []
                for tensor in [*held, *attribute.tensors]:
                    yield tensor.name or f"{node.op_type} {node.name or ', '.join(node.output)}", tensor


def _walk(graph: onnx.GraphProto, depth: int) -> Iterator[GraphVisit]:
    nodes = list(graph.node)
    sparse = len(graph.sparse_initializer) + _sparse_constants(nodes)
    yield GraphVisit(nodes, list(graph.initializer), sparse, depth)
    if depth < MAX_DEPTH:
        yield from _walk_attributes(nodes, depth + 1)


def _walk_attributes(nodes: list[onnx.NodeProto], depth: int) -> Iterator[GraphVisit]:
    for node in nodes:
        for body in body_protos(node):
            yield from _walk(body, depth)


def _sparse_constants(nodes: list[onnx.NodeProto]) -> int:
    return sum(
        attribute.HasField("sparse_tensor") or len(attribute.sparse_tensors) > 0
        for node in nodes
        for attribute in node.attribute
    )
