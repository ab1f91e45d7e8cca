"""Blocks of a network: runs of layers with little between them and the rest, each of which can be tuned by itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx_ir as ir

from quant_core.ingest.layer import Layer
from quant_core.ingest.subgraphs import read_inside

_MOST_LAYERS = 8
"""Uses of weights beyond which a block is cut, at its narrowest place if need be."""
_LEAST_LAYERS = 3
"""Uses of two neighbouring blocks together up to which they stay one."""


@dataclass(frozen=True)
class Block:
    """Consecutive nodes of a graph, from where an error of the weights can enter to where it leaves.

    Attributes:
        layers: Names of the layers that can be tuned in it: all nodes that read their weights are inside.
        inputs: Tensors from earlier blocks that it reads. What no rounded weight touches is not counted.
        outputs: Tensors it makes that later blocks read, and graph outputs.
    """

    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def find_blocks(model: ir.Model, layers: Sequence[Layer], tuned: Collection[str]) -> tuple[Block, ...]:
    """Cut a graph into blocks.

    With the nodes in order, a cut behind a node crosses the tensors made so far that something later reads, as far as
    they depend on a weight of `layers`. Cuts that cross one tensor divide the graph: those are the ends of residual
    blocks, of inverted residuals and of the halves of a transformer's layer. What then holds more than eight layers,
    such as the whole of a U-net, is divided again where fewest tensors cross; neighbours of three layers or fewer
    together, such as those of plain chains, are one block. Between two layers the last of the narrowest cuts counts,
    so that a block ends behind its activation function.

    Args:
        model: The normalised graph.
        layers: Every layer whose weight is rounded.
        tuned: Names of those to be tuned.

    Returns:
        The blocks in graph order; together they hold every node that matters behind the first rounded weight.
    """
    flow = _Flow.of(model, layers)
    users = {use.node: layer.name for layer in layers if layer.name in tuned for use in layer.uses}
    at = [position for position, node in enumerate(flow.nodes) if node.name in users]
    if not at:
        return ()
    gaps = [flow.narrowest(start, stop) for start, stop in pairwise(at)]
    chosen = _joined(sorted(_divide(gaps, 0, len(at))), len(at))
    edges = [-1, *(gaps[gap][1] for gap in chosen), len(flow.nodes) - 1]
    blocks = [flow.block(start, stop, users) for start, stop in pairwise(edges)]
    return tuple(block for block in blocks if block.outputs)


def _divide(gaps: Sequence[tuple[int, int]], first: int, last: int) -> Iterator[int]:
    """Choose among the gaps between uses `first` and `last - 1`; gap i lies behind use i."""
    inside = range(first, last - 1)
    narrow = [gap for gap in inside if gaps[gap][0] <= 1]
    if not narrow and last - first > _MOST_LAYERS:
        middle = (first + last - 2) / 2
        narrow = [min(inside, key=lambda gap: (gaps[gap][0], abs(gap - middle)))]
    yield from narrow
    if narrow:
        starts = [first, *(gap + 1 for gap in narrow), last]
        for start, stop in pairwise(starts):
            if stop - start > _MOST_LAYERS:
                yield from _divide(gaps, start, stop)


def _joined(chosen: Sequence[int], uses: int) -> list[int]:
    """Leave out gaps between small neighbours."""
    kept: list[int] = []
    for gap, following in pairwise((*chosen, uses - 1)):
        start = kept[-1] if kept else -1
        if following - start > _LEAST_LAYERS:
            kept.append(gap)
    return kept


@dataclass(frozen=True)
class _Flow:
    """Where tensors that depend on rounded weights are made and read.

    Attributes:
        nodes: The nodes in order.
        born: Tensor -> position of the node that makes it.
        reads: Node position -> tensors that it reads, subgraphs included.
        last: Tensor -> position of the last node that reads it.
        ends: Graph outputs.
    """

    nodes: tuple[ir.Node, ...]
    born: dict[str, int]
    reads: tuple[tuple[str, ...], ...]
    last: dict[str, int]
    ends: frozenset[str]

    @classmethod
    def of(cls, model: ir.Model, layers: Sequence[Layer]) -> _Flow:
        nodes = tuple(model.graph)
        rounded = {use.node for layer in layers for use in layer.uses}
        born: dict[str, int] = {}
        last: dict[str, int] = {}
        reads = []
        for position, node in enumerate(nodes):
            read = (str(value.name) for value in (*node.inputs, *read_inside(node)) if value is not None)
            moving = tuple(name for name in dict.fromkeys(read) if name in born)
            reads.append(moving)
            last |= dict.fromkeys(moving, position)
            if moving or node.name in rounded:
                born |= {str(value.name): position for value in node.outputs if value.name}
        ends = frozenset(str(value.name) for value in model.graph.outputs)
        return cls(nodes, born, tuple(reads), last, ends)

    def narrowest(self, start: int, stop: int) -> tuple[int, int]:
        """Give how many tensors cross the narrowest cut behind `start` and before `stop`, and the last such cut."""
        crossing, position = min((self._crossing(position), -position) for position in range(start, stop))
        return crossing, -position

    def _crossing(self, position: int) -> int:
        return sum(born <= position < self.last.get(name, -1) for name, born in self.born.items())

    def block(self, start: int, stop: int, users: dict[str, str]) -> Block:
        """Give the block of the nodes behind `start` up to `stop`."""
        inside = range(start + 1, stop + 1)
        names = dict.fromkeys(users[name] for p in inside if (name := str(self.nodes[p].name)) in users)
        within = {str(self.nodes[p].name) for p in inside}
        outside = {layer for node, layer in users.items() if node not in within}
        entering = dict.fromkeys(n for p in inside for n in self.reads[p] if self.born[n] <= start)
        leaving = [
            name
            for name, born in self.born.items()
            if start < born <= stop and (self.last.get(name, -1) > stop or name in self.ends)
        ]
        return Block(tuple(n for n in names if n not in outside), tuple(entering), tuple(leaving))
