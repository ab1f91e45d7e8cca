"""Reading parts of a tensor: slices, gathers, orderings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from quant_core.executor.node import Node
from quant_core.executor.registry import WHOLE, Kernel, operator


def wrap(index: Tensor, size: int) -> Tensor:
    """Indices with negative ones counted from the end, as int64."""
    index = index.to(torch.int64)
    return torch.where(index < 0, index + size, index)


@operator("Gather")
def _gather(node: Node) -> Kernel:
    axis = node.int("axis", 0)
    constant = node.constant(1)
    single = node.host(1) if constant is not None and constant.dim() == 0 else None
    # Stored indices are looked at once; those without a negative need no wrapping.
    positive = constant is not None and (constant.numel() == 0 or bool((constant >= 0).all()))

    def gather(x: Tensor, indices: Tensor) -> Tensor:
        stored = None if single is None else single.stored(indices)
        if stored is not None:
            return x.select(axis, stored)
        at = axis % x.dim()
        place = indices.to(torch.int64) if positive and indices is constant else wrap(indices, x.shape[at])
        flat = x.index_select(at, place.reshape(-1))
        return flat.reshape((*x.shape[:at], *indices.shape, *x.shape[at + 1 :]))

    return gather


@operator("GatherElements")
def _gather_elements(node: Node) -> Kernel:
    axis = node.int("axis", 0)
    return lambda x, indices: x.gather(axis, wrap(indices, x.shape[axis]))


@operator("GatherND")
def _gather_nd(node: Node) -> Kernel:
    batch = node.int("batch_dims", 0)

    def gather_nd(x: Tensor, indices: Tensor) -> Tensor:
        depth = indices.shape[-1]
        lead = math.prod(indices.shape[:batch])
        picked = indices.reshape(lead, -1, depth)
        source = x.reshape(lead, *x.shape[batch:])
        rows = torch.arange(lead, device=x.device).unsqueeze(1)
        where = [wrap(picked[..., axis], x.shape[batch + axis]) for axis in range(depth)]
        found = source[(rows, *where)]
        return found.reshape((*indices.shape[:-1], *x.shape[batch + depth :]))

    return gather_nd


def slice_axes(
    x: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Tensor:
    """A slice with ONNX's rules: negative positions count from the end, out-of-range ones are clamped.

    Args:
        x: Any tensor.
        starts: First position along each axis.
        ends: Position before which to stop along each axis.
        axes: Which axes; the first ones if None.
        steps: Step along each axis; 1 if None.

    Returns:
        The slice; a view unless a step is negative.
    """
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = axes[index] if axes is not None else index
        step = steps[index] if steps is not None else 1
        size = x.shape[axis]
        if step > 0:
            first, last, _ = slice(start, end, step).indices(size)
            if first == 0 and last == size and step == 1:
                continue
            x = x.narrow(axis, first, max(last - first, 0))
            if step > 1:
                x = x[(slice(None),) * (axis % x.dim()) + (slice(None, None, step),)]
        else:
            place = range(*slice(start, end if end >= -size else None, step).indices(size))
            x = x.index_select(axis, torch.tensor(list(place), dtype=torch.int64, device=x.device))
    return x


@operator("Slice")
def _slice(node: Node) -> Kernel:
    if node.version < 10:
        starts, ends, axes = node.ints("starts"), node.ints("ends"), node.ints("axes")
        return lambda x: slice_axes(x, starts, ends, axes, None)
    first, last, which, by = node.host(1), node.host(2), node.host(3), node.host(4)

    def sliced(
        x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        return slice_axes(
            x,
            first.list(starts),
            last.list(ends),
            None if axes is None else which.list(axes),
            None if steps is None else by.list(steps),
        )

    return sliced


@operator("Compress")
def _compress(node: Node) -> Kernel:
    axis = node.int("axis")

    def compress(x: Tensor, condition: Tensor) -> Tensor:
        kept = condition.nonzero().flatten()
        return x.flatten().index_select(0, kept) if axis is None else x.index_select(axis, kept)

    return compress


@operator("TopK")
def _top_k(node: Node) -> Kernel:
    axis, largest, in_order = node.int("axis", -1), node.flag("largest", True), node.flag("sorted", True)
    fixed, count = node.int("k"), node.host(1)

    def top_k(x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
        size = fixed if k is None else int(count.scalar(k))
        # A stable sort, so that equal values come in order of position as onnxruntime gives them.
        values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
        return values.narrow(axis, 0, size), places.narrow(axis, 0, size)

    del in_order
    return top_k


@operator("NonZero", flat=WHOLE)
def _non_zero(_node: Node) -> Kernel:
    return lambda x: x.nonzero().t().contiguous() if x.dim() else x.reshape(1).nonzero().t()[:0].contiguous()


@operator("Unique")
def _unique(node: Node) -> Kernel:
    axis, in_order = node.int("axis"), node.flag("sorted", True)

    def unique(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        flat = x.flatten() if axis is None else x
        at = 0 if axis is None else axis
        detached = flat.detach()
        _, inverse, counts = torch.unique(detached, dim=at, return_inverse=True, return_counts=True)
        position = torch.arange(inverse.numel(), device=x.device)
        first = torch.full_like(counts, inverse.numel()).scatter_reduce(
            0, inverse.flatten(), position, "amin"
        )
        if not in_order:
            order = first.argsort()
            rank = torch.empty_like(order).scatter(0, order, torch.arange(order.numel(), device=x.device))
            first, counts, inverse = first[order], counts[order], rank[inverse]
        # Values are read from the input again, so that they keep its gradient.
        return flat.index_select(at, first), first, inverse.flatten(), counts

    return unique


@operator("ReverseSequence")
def _reverse_sequence(node: Node) -> Kernel:
    batch_axis, time_axis = node.int("batch_axis", 1), node.int("time_axis", 0)

    def reverse(x: Tensor, lengths: Tensor) -> Tensor:
        moved = x.movedim((batch_axis, time_axis), (0, 1))
        step = torch.arange(moved.shape[1], device=x.device).unsqueeze(0)
        ends = lengths.unsqueeze(1)
        place = torch.where(step < ends, ends - 1 - step, step)
        rows = torch.arange(moved.shape[0], device=x.device).unsqueeze(1)
        return moved[rows, place].movedim((0, 1), (batch_axis, time_axis))

    return reverse
