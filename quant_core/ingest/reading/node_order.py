"""Put nodes in an order in which each comes after those whose results it reads."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import onnx

from quant_core.ingest.subgraphs import body_protos


def sort_nodes(graph: onnx.GraphProto) -> bool:
    """Sort the nodes of a graph and of its subgraphs in place, keeping their order where it is right.

    The standard demands this order and onnxruntime does not; its own converter to float16 appends Cast nodes at the
    end.

    Args:
        graph: A parsed graph, nested no deeper than `MAX_DEPTH`.

    Returns:
        Whether anything moved; False also where nodes read each other in a circle, which the checker names.
    """
    moved = False
    for node in graph.node:
        for inner in body_protos(node):
            moved |= sort_nodes(inner)
    order = _order(graph.node)
    if order is None or order == sorted(order):
        return moved
    nodes = [onnx.NodeProto.FromString(graph.node[index].SerializeToString()) for index in order]
    del graph.node[:]
    graph.node.extend(nodes)
    return True


def _order(nodes: Sequence[onnx.NodeProto]) -> list[int] | None:
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waiting = []
    readers: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        needed = {makers[name] for name in _reads(node) if name in makers} - {index}
        waiting.append(len(needed))
        for maker in needed:
            readers.setdefault(maker, []).append(index)
    ready = [index for index, count in enumerate(waiting) if not count]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return order if len(order) == len(waiting) else None


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names a node reads, in its subgraphs too; names made inside of those may be among them."""
    yield from node.input
    for body in body_protos(node):
        yield from (output.name for output in body.output)
        for inner in body.node:
            yield from _reads(inner)
