"""The bodies of If, Loop and Scan, and what they read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """Give the subgraphs that a node holds itself.

    Args:
        node: The node.

    Yields:
        One graph after another.
    """
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def read_inside(node: ir.Node) -> Iterator[ir.Value]:
    """Give what the subgraphs of a node read, at any depth; tensors that are made inside are among them.

    Args:
        node: The node.

    Yields:
        One tensor after another, with repeats.
    """
    for body in bodies(node):
        yield from body.outputs
        for inner in body:
            yield from (value for value in inner.inputs if value is not None)
            yield from read_inside(inner)


def body_protos(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Give the subgraphs that a node of a protobuf holds itself.

    Args:
        node: The node.

    Yields:
        One graph after another.
    """
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def node_protos(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Give the nodes of a graph of a protobuf and of its subgraphs.

    Args:
        graph: The graph.

    Yields:
        One node after another, each before those inside it.
    """
    for node in graph.node:
        yield node
        for body in body_protos(node):
            yield from node_protos(body)


def names_inside(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Collect every name that the subgraphs of nodes of a protobuf read or make.

    Args:
        nodes: The nodes.

    Returns:
        Names of tensors and nodes inside them, at any depth.
    """
    found: set[str] = set()
    for node in nodes:
        for body in body_protos(node):
            found |= {name for inner in body.node for name in (*inner.input, *inner.output, inner.name)}
            found |= {value.name for value in (*body.input, *body.initializer)}
            found |= names_inside(body.node)
    return found
