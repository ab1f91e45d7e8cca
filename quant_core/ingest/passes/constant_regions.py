"""Compute weights that several nodes make of constants, where the result takes no more room than what it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from quant_core.ingest.passes.constants import (
    SMALL,
    evaluate_node,
    is_foldable,
    picks_rows,
    room,
    store_constant,
)

_WIDEST = 16
"""How many times as large as the constants that it frees a tensor on the way may be."""


@dataclass
class _Region:
    """Nodes that depend on constants alone and hang together.

    Attributes:
        nodes: In the order of the graph.
        leaves: The constants that they read.
        made: What they write.
    """

    nodes: list[ir.Node] = field(default_factory=list)
    leaves: dict[ir.Value, None] = field(default_factory=dict)
    made: dict[ir.Value, None] = field(default_factory=dict)


class FoldConstantRegions(ir.passes.InPlacePass):
    """Replace nodes that depend on constants alone by what others read of them.

    `FoldConstants` looks at one node at a time and stops where a result would be larger than what the node frees: at
    `W` less its mean, where `W` is also read for its variance; at the cuts of a projection for query, key and value;
    at the product of two low-rank factors that is added to a weight. Together such nodes free more than they leave.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place; only the main graph.

        Args:
            model: A model whose constants are initializers, with inferred shapes noted.

        Returns:
            The same model.
        """
        version = model.graph.opset_imports[""]
        modified = False
        for region in _regions(model.graph):
            kept = [value for value in region.made if _is_read_outside(value, region)]
            if _shrinks(region, kept) and _fold(region, kept, version, model.graph):
                modified = True
        return ir.passes.PassResult(model, modified=modified)


def _regions(graph: ir.Graph) -> Iterator[_Region]:
    """Collect the regions; nodes hang together by what one writes for another, or by a large constant they share."""
    of: dict[ir.Value, _Region] = {}
    found: list[_Region] = []
    for node in graph:
        operands = [value for value in node.inputs if value is not None]
        if picks_rows(node) or not is_foldable(node, known=of):
            continue
        region = _Region()
        shared = [
            of[value] for value in operands if value in of and (value.producer() or _size(value) > SMALL)
        ]
        for other in dict.fromkeys(id(one) for one in shared):
            joined = next(one for one in shared if id(one) == other)
            found = [one for one in found if one is not joined]
            region.nodes += joined.nodes
            region.leaves |= joined.leaves
            region.made |= joined.made
        region.nodes.append(node)
        region.leaves |= {value: None for value in operands if value.is_initializer()}
        region.made |= dict.fromkeys(node.outputs)
        found.append(region)
        of |= dict.fromkeys((*region.leaves, *region.made), region)
    places = {node: place for place, node in enumerate(graph)}
    for region in found:
        region.nodes.sort(key=places.__getitem__)
        yield region


def _is_read_outside(value: ir.Value, region: _Region) -> bool:
    return value.is_graph_output() or any(node not in region.nodes for node, _ in value.uses())


def _shrinks(region: _Region, kept: list[ir.Value]) -> bool:
    """Whether the results take no more room than the constants that nothing else reads."""
    freed = sum(
        room(_size(leaf), leaf.dtype)
        for leaf in region.leaves
        if not leaf.is_graph_output() and all(node in region.nodes for node, _ in leaf.uses())
    )
    sizes = {value: room(_size(value), value.dtype) for value in region.made if value.uses()}
    return (
        not any(value.is_graph_output() for value in region.made)
        and all(0 <= size <= _WIDEST * max(freed, SMALL) for size in sizes.values())
        and sum(sizes[value] for value in kept) <= max(freed, SMALL)
    )


def _size(value: ir.Value) -> int:
    """Elements of a tensor; -1 where its shape leaves them open."""
    if value.const_value is not None:
        return int(value.const_value.size)
    if value.shape is None or not value.shape.is_static():
        return -1
    size = 1
    for length in value.shape.numpy():
        size *= length
    return size


def _fold(region: _Region, kept: list[ir.Value], version: int, graph: ir.Graph) -> bool:
    """Compute the region and put its results in place of it; False where a node cannot be computed here."""
    known = {leaf: leaf.const_value for leaf in region.leaves if leaf.const_value is not None}
    for node in region.nodes:
        operands = {str(value.name): known[value] for value in node.inputs if value is not None}
        results = evaluate_node(node, operands, version)
        if results is None:
            return False
        known |= dict(zip(node.outputs, results, strict=True))
    if any(known[value].size != _size(value) for value in kept):
        return False
    for value in kept:
        store_constant(value, known[value], graph)
    for node in reversed(region.nodes):
        graph.remove(node, safe=True)
    for leaf in region.leaves:
        if not leaf.uses() and not leaf.is_graph_output() and leaf.name is not None:
            graph.initializers.pop(leaf.name, None)
    return True
