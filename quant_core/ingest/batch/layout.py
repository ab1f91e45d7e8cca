"""Where the batch axis goes in operators that move, cut or repeat values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from quant_core.ingest.batch.operands import (
    Axis,
    BatchBoundError,
    Place,
    Rule,
    Shape,
    along,
    constant,
    known_shape,
    only_data,
    shape_of,
)


def reshaped(node: ir.Node, given: Sequence[Axis], outer: int, shapes: Mapping[str, Shape]) -> Place:
    """Find the batch behind a Reshape or Flatten.

    Args:
        node: The node.
        given: Batch axes of its inputs.
        outer: What lies outside of the batch in its axis of the data.
        shapes: Tensor name -> shape in a run of one sample.

    Returns:
        Where the batch is afterwards.

    Raises:
        BatchBoundError: If there is no such place.
    """
    batch = only_data(given)
    before, after = shape_of(node, 0, shapes), known_shape(node.outputs[0], shapes)
    if 0 in before:
        raise BatchBoundError("its data is empty")
    outside = math.prod(before[:batch]) * outer
    if node.op_type == "Flatten":
        cut = node.attributes.get_int("axis", 1)
        axis = int(batch >= (cut if cut >= 0 else cut + len(before)))
        return Place(axis, outside // math.prod(after[:axis]))
    places = []
    for axis, size in enumerate(after):
        rest, uneven = divmod(outside, math.prod(after[:axis]))
        if not uneven and rest and size % rest == 0:
            places.append(Place(axis, rest))
    alone = [place for place in places if place.outer == 1 and (after[place.axis] == 1 or outside == 1)]
    if not places:
        raise BatchBoundError("it cuts through the batch")
    if alone:
        return Place(batch) if Place(batch) in alone else alone[0]
    # At a batch of 1 nothing tells rows x samples from samples x features; a matrix goes on to a linear layer.
    return places[0] if len(after) == 2 else places[-1]


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


def sliced_at(node: ir.Node, axis: int, rank: int) -> int | None:
    """Find which entry of a Slice's bounds is about an axis.

    Args:
        node: A Slice.
        axis: The axis.
        rank: Rank of its data.

    Returns:
        The position, or None where that axis stays whole.
    """
    cut = constant(node, 3) or list(range(len(constant(node, 1) or range(rank))))
    named = [entry % rank for entry in cut]
    return named.index(axis) if axis in named else None


def _slice(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    batch, before = only_data(given), shape_of(node, 0, shapes)
    position = sliced_at(node, batch, len(before))
    if position is not None:
        starts, ends = constant(node, 1), constant(node, 2)
        step = (constant(node, 4) or [1] * len(before))[position]
        # The end of a batch of 1, as some exporters write it, is made open.
        if not starts or not ends or starts[position] or ends[position] < before[batch] or step != 1:
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


def _same_shape(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    # CumSum, along an axis that is an operand; Trilu, along the last two.
    batch, rank = only_data(given), len(shape_of(node, 0, shapes))
    worked = constant(node, 1) if node.op_type == "CumSum" else [rank - 2, rank - 1]
    if worked is None or batch in {axis % rank for axis in worked}:
        raise BatchBoundError("it works along the batch")
    return batch


def _one_hot(node: ir.Node, given: Sequence[Axis], shapes: Mapping[str, Shape]) -> int:
    batch, rank = only_data(given), len(shape_of(node, 0, shapes)) + 1
    return batch + (node.attributes.get_int("axis", -1) % rank <= batch)


LAYOUT: Mapping[str, Rule] = {
    "Concat": _concat,
    "CumSum": _same_shape,
    "Expand": _same_size,
    "Gather": _gather,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Resize": _same_size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _same_size,
    "Transpose": _transpose,
    "Trilu": _same_shape,
    "Unsqueeze": _unsqueeze,
}
"""Rules by operator."""
