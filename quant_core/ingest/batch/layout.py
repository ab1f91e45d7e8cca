"""Where the batch axis goes in operators that move, cut or repeat values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from quant_core.ingest.batch.operands import (
    Axis,
    BatchBoundError,
    Rule,
    Shape,
    along,
    constant,
    known_shape,
    only_data,
    shape_of,
)


def _reshape(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    batch = only_data(given)
    before, after = shape_of(node, 0, shapes), known_shape(node.outputs[0], shapes)
    outside = math.prod(before[:batch])
    cuts = [axis for axis in range(len(after)) if math.prod(after[:axis]) == outside]
    if not cuts or 0 in after:
        raise BatchBoundError("it folds the batch into another axis")
    return batch if batch in cuts else cuts[0]


def _flatten(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    batch, rank = only_data(given), len(shape_of(node, 0, shapes))
    axis = node.attributes.get_int("axis", 1)
    axis = axis if axis == rank else axis % rank
    if batch not in {0, axis}:
        raise BatchBoundError("it folds the batch into another axis")
    return int(batch == axis)


def _squeeze(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    batch, before = only_data(given), shape_of(node, 0, shapes)
    named = constant(node, 1)
    gone = [i for i, n in enumerate(before) if n == 1] if named is None else [i % len(before) for i in named]
    if batch in gone:
        raise BatchBoundError("it removes the batch axis")
    return batch - sum(axis < batch for axis in gone)


def _unsqueeze(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    batch, rank = only_data(given), len(known_shape(node.outputs[0], shapes))
    new = {axis % rank for axis in constant(node, 1) or ()}
    return [axis for axis in range(rank) if axis not in new][batch]


def _transpose(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    rank = len(shape_of(node, 0, shapes))
    return list(node.attributes.get_ints("perm", range(rank)[::-1])).index(only_data(given))


def _concat(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    batch = {axis for axis in given if axis is not None}
    if len(batch) > 1:
        raise BatchBoundError("its operands count samples along different axes")
    axis = batch.pop()
    first = next(i for i, found in enumerate(given) if found is not None)
    shape = shape_of(node, first, shapes)
    if node.attributes.get_int("axis", 0) % len(shape) == axis:
        raise BatchBoundError("it joins along the batch")
    if shape[axis] != 1 and None in given:
        raise BatchBoundError("it joins a constant to a folded batch")
    return axis


def _split(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    return along(given, node.attributes.get_int("axis", 0), node, shapes)


def _slice(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    batch, rank = only_data(given), len(shape_of(node, 0, shapes))
    starts, ends = constant(node, 1), constant(node, 2)
    cut = constant(node, 3) or list(range(len(starts or range(rank))))
    if batch in {axis % rank for axis in cut}:
        position = [axis % rank for axis in cut].index(batch)
        whole = starts and ends and starts[position] == 0 and ends[position] > 2**31 - 2
        if not whole or (constant(node, 4) or [1] * rank)[position] != 1:
            raise BatchBoundError("it cuts the batch")
    return batch


def _pad(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    batch, rank = only_data(given), len(shape_of(node, 0, shapes))
    amounts = constant(node, 1)
    padded = [axis % rank for axis in constant(node, 3) or range(rank)]
    if amounts is None:
        raise BatchBoundError("its padding is computed")
    both = amounts[: len(padded)], amounts[len(padded) :]
    if batch in padded and any(part[padded.index(batch)] for part in both):
        raise BatchBoundError("it pads the batch")
    return batch


def _same_size(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    # Right as long as the batch keeps its length; Expand may add axes in front.
    batch, before, after = only_data(given), shape_of(node, 0, shapes), known_shape(node.outputs[0], shapes)
    axis = batch + len(after) - len(before)
    if after[axis] != before[batch]:
        raise BatchBoundError("it repeats the batch")
    return axis


def _gather(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    data, picks = given
    rank, picked = len(shape_of(node, 0, shapes)), len(shape_of(node, 1, shapes))
    axis = node.attributes.get_int("axis", 0) % rank
    if data is None and picks is not None:
        return axis + picks
    if picks is not None or data is None or data == axis:
        raise BatchBoundError("it picks from the batch")
    return data if data < axis else data - 1 + picked


LAYOUT: Mapping[str, Rule] = {
    "Concat": _concat,
    "Expand": _same_size,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _same_size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _same_size,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Rules by operator."""
