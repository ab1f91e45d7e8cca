"""What the rules about batch axes know of a node's operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_integers

Axis = int | None
"""Axis that holds the batch; None for tensors that are the same for every sample."""

Shape = tuple[int, ...]

Rule = Callable[[ir.Node, Sequence[Axis], Mapping[str, Shape]], int]
"""Node, batch axes of its inputs, shapes in a run of one sample -> batch axis of its outputs."""


class Place(NamedTuple):
    """Where the batch B lies in a tensor: the axis has `outer * B * inner` entries in that order.

    Attributes:
        axis: The axis.
        outer: What lies outside of the batch in it, such as time steps; 1 where samples follow each other.
    """

    axis: int
    outer: int = 1


class BatchBoundError(Exception):
    """A node that ties samples together, or about which nothing is known; the text is for the report."""


def constant(node: ir.Node, position: int) -> list[int] | None:
    """Read a constant integer operand.

    Args:
        node: Any node.
        position: Which input.

    Returns:
        Its elements; None where it is absent or not constant.
    """
    return constant_integers(node.inputs[position]) if position < len(node.inputs) else None


def known_shape(value: ir.Value | None, shapes: Mapping[str, Shape]) -> Shape:
    """Look up a shape.

    Args:
        value: A tensor, or None for an absent operand.
        shapes: Tensor name -> shape in a run of one sample.

    Returns:
        The shape; that of a scalar for an absent operand.

    Raises:
        BatchBoundError: If it is not known.
    """
    if value is None:
        return ()
    if value.const_value is not None:
        return tuple(value.const_value.shape.numpy())
    name = value.name or ""
    if name not in shapes:
        raise BatchBoundError(f"the shape of {name!r} is not known")
    return shapes[name]


def shape_of(node: ir.Node, position: int, shapes: Mapping[str, Shape]) -> Shape:
    """Look up the shape of an operand.

    Args:
        node: Any node.
        position: Which input.
        shapes: Tensor name -> shape in a run of one sample.

    Returns:
        The shape.
    """
    return known_shape(node.inputs[position], shapes)


def only_data(given: Sequence[Axis]) -> int:
    """Demand that of all operands the first alone differs from sample to sample.

    Args:
        given: Batch axes of the inputs.

    Returns:
        The batch axis of the first.

    Raises:
        BatchBoundError: If another operand has a batch axis.
    """
    first = given[0]
    if first is None or any(axis is not None for axis in given[1:]):
        raise BatchBoundError("an operand other than its data differs from sample to sample")
    return first


def along(given: Sequence[Axis], axis: int, node: ir.Node, shapes: Mapping[str, Shape]) -> int:
    """Demand that an operator works along another axis than the batch.

    Args:
        given: Batch axes of the inputs.
        axis: The axis it works along; negative counts from the end.
        node: The node.
        shapes: Tensor name -> shape in a run of one sample.

    Returns:
        The batch axis of the data.

    Raises:
        BatchBoundError: If it works along the batch.
    """
    batch = only_data(given)
    if axis % len(shape_of(node, 0, shapes)) == batch:
        raise BatchBoundError("it works along the batch")
    return batch
