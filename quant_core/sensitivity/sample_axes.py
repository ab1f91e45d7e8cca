"""Which axis of each output counts samples, found by running the program."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from quant_core.executor import Program

_TOLERANCE = 1e-3

Feeds = Mapping[str, torch.Tensor]


def find_sample_axes(
    program: Program, feeds: Feeds, outputs: Feeds, fixed_batch: int | None = None
) -> dict[str, int | None]:
    """Find the axis of every graph output along which samples lie.

    A program that takes any number of samples is run with one sample more: the axis that becomes longer in proportion
    is the one. (One fewer may leave a single sample, whose axis some models squeeze away.) A program that takes n at a
    time is run with its samples in another order, and the axis along which the output is reordered alike is the one. A
    program that takes one sample at a time has outputs that are that sample's throughout; of axes of size 1 the first
    counts as the one, and so it is where a single sample's axis was squeezed away.

    Args:
        program: The float program.
        feeds: Graph input name -> samples along the first axis.
        outputs: Graph output name -> the program's value for those samples.
        fixed_batch: Samples that the program demands per run, or None.

    Returns:
        Graph output name -> axis. The axis may hold several rows a sample, one sample after the other. None for outputs
        that no axis ties to the samples: sums over the batch, selections of varying size, and rows of several samples
        that lie in turns.
    """
    count = len(next(iter(feeds.values())))
    if fixed_batch is None:
        longer = {name: torch.cat([value, value[:1]]) for name, value in feeds.items()}
        with torch.no_grad():
            more = program.evaluate(longer, outputs=tuple(outputs))
        return {
            name: _single(value)
            if count == 1 and value.dim() != more[name].dim()
            else _shrinking(more[name], value, count + 1)
            for name, value in outputs.items()
        }
    if count == 1:
        return {name: _single(value) for name, value in outputs.items()}
    rolled = {name: value.roll(1, 0) for name, value in feeds.items()}
    with torch.no_grad():
        other = program.evaluate(rolled, outputs=tuple(outputs))
    return {name: _moving(value, other[name], count) for name, value in outputs.items()}


def _single(value: torch.Tensor) -> int | None:
    if not value.dim():
        return None
    return next((axis for axis, size in enumerate(value.shape) if size == 1), 0)


def shrunk_axis(whole: torch.Tensor, part: torch.Tensor, count: int, left_out: int) -> tuple[int, int] | None:
    """Find the axis along which a tensor is shorter in proportion, and no other, once some samples are left out.

    Args:
        whole: The tensor of all samples.
        part: That of the others.
        count: How many samples there are.
        left_out: How many of them `part` lacks.

    Returns:
        The axis, and the rows of a sample along it; None where there is no such axis.
    """
    if whole.dim() != part.dim():
        return None
    changed = [axis for axis in range(whole.dim()) if whole.shape[axis] != part.shape[axis]]
    if len(changed) != 1:
        return None
    (axis,) = changed
    rows, uneven = divmod(whole.shape[axis], count)
    return None if uneven or part.shape[axis] != rows * (count - left_out) else (axis, rows)


def _shrinking(value: torch.Tensor, less: torch.Tensor, count: int) -> int | None:
    found = shrunk_axis(value, less, count, 1)
    if found is None:
        return None
    axis, rows = found
    # Several rows a sample may also lie step by step, with the samples of each step side by side.
    kept = value.narrow(axis, 0, less.shape[axis])
    return axis if rows == 1 or _close(kept, less) else None


def _moving(value: torch.Tensor, other: torch.Tensor, count: int) -> int | None:
    if value.shape != other.shape:
        return None
    for axis, size in enumerate(value.shape):
        rows, uneven = divmod(size, count)
        if rows and not uneven and _close(value.roll(rows, axis), other):
            return axis
    return None


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if not one.is_floating_point():
        return torch.equal(one, other)
    scale = float(other.abs().max()) if other.numel() else 0.0
    return torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE * scale)
