"""Changes of shape and layout that move no values, or copy them without arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from quant_core.executor.node import Node
from quant_core.executor.registry import Kernel, direct, operator

direct("Identity", lambda x: x)


@operator("Reshape")
def _reshape(node: Node) -> Kernel:
    allow_zero = node.flag("allowzero")
    if node.version < 5:
        fixed = node.ints("shape")
        return lambda x: x.reshape(_target(x, fixed, allow_zero))
    target = node.host(1)
    return lambda x, shape: x.reshape(_target(x, target.list(shape), allow_zero))


def _target(x: Tensor, shape: Sequence[int], allow_zero: bool) -> list[int]:
    if allow_zero or 0 not in shape:
        return list(shape)
    return [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]


@operator("Flatten")
def _flatten(node: Node) -> Kernel:
    axis = node.int("axis", 1)

    def flatten(x: Tensor) -> Tensor:
        at = axis + x.dim() if axis < 0 else axis
        return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))

    return flatten


@operator("Transpose")
def _transpose(node: Node) -> Kernel:
    order = node.ints("perm")
    return lambda x: x.permute(order if order is not None else tuple(reversed(range(x.dim()))))


@operator("Squeeze")
def _squeeze(node: Node) -> Kernel:
    if node.version < 13 or not node.has(1):
        fixed = node.ints("axes")
        return lambda x, _axes=None: _drop(x, fixed)
    given = node.host(1)
    return lambda x, axes: _drop(x, given.list(axes))


def _drop(x: Tensor, axes: Sequence[int] | None) -> Tensor:
    if axes is None:
        return x.squeeze()
    if any(x.shape[axis] != 1 for axis in axes):
        raise ValueError(f"axes {list(axes)} of shape {list(x.shape)} are not all of size 1")
    return x.squeeze(tuple(axes))


@operator("Unsqueeze")
def _unsqueeze(node: Node) -> Kernel:
    if node.version < 13:
        fixed = node.ints("axes")
        return lambda x: _insert(x, fixed)
    given = node.host(1)
    return lambda x, axes: _insert(x, given.list(axes))


def _insert(x: Tensor, axes: Sequence[int]) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Expand")
def _expand(node: Node) -> Kernel:
    given = node.host(1)

    def expand(x: Tensor, shape: Tensor) -> Tensor:
        shared = torch.broadcast_shapes(x.shape, tuple(given.list(shape)))  # type: ignore[no-untyped-call]
        return x.expand(shared)

    return expand


@operator("Tile")
def _tile(node: Node) -> Kernel:
    given = node.host(1)
    return lambda x, repeats: x.repeat(given.list(repeats)) if x.dim() else x


@operator("Concat")
def _concat(node: Node) -> Kernel:
    axis = node.int("axis", 1)

    def concat(*tensors: Tensor) -> Tensor:
        return torch.cat(tensors, axis)

    return concat


@operator("Split")
def _split(node: Node) -> Kernel:
    axis, count = node.int("axis", 0), len(node.wanted)
    if node.version < 13 or not node.has(1):
        fixed = node.ints("split")
        parts = node.int("num_outputs", count)
        if not 0 < parts <= max(count, 1):
            raise node.invalid(f"states {parts} outputs but has {count}.")
        return lambda x, _sizes=None: tuple(
            torch.split(x, list(fixed) if fixed else _even(x.shape[axis], parts), axis)
        )
    given = node.host(1)
    return lambda x, sizes: tuple(torch.split(x, given.list(sizes), axis))


def _even(size: int, parts: int) -> list[int]:
    step = -(-size // parts)
    return [min(step, max(size - step * part, 0)) for part in range(parts)]


@operator("DepthToSpace")
def _depth_to_space(node: Node) -> Kernel:
    block, columns_first = node.int("blocksize"), node.string("mode", "DCR") == "CRD"

    def depth_to_space(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        depth = c // block**2
        if columns_first:
            y = x.reshape(n, depth, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
        else:
            y = x.reshape(n, block, block, depth, h, w).permute(0, 3, 4, 1, 5, 2)
        return y.reshape(n, depth, h * block, w * block)

    return depth_to_space


@operator("SpaceToDepth")
def _space_to_depth(node: Node) -> Kernel:
    block = node.int("blocksize")
    order = (0, 1, 3, 5, 2, 4) if node.string("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)

    def space_to_depth(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // block, block, w // block, block).permute(order)
        return y.reshape(n, c * block**2, h // block, w // block)

    return space_to_depth


@operator("Pad", note="constant, reflect, edge and wrap; differentiable in the constant too")
def _pad(node: Node) -> Kernel:
    mode = node.string("mode", "constant")
    if node.version < 11:
        fixed, constant = node.ints("pads", node.ints("paddings")), node.float("value", 0.0)
        return lambda x: _padded(x, fixed, None, mode, constant)
    pads, values, axes = node.host(1), node.host(2), node.host(3)

    def pad(x: Tensor, amounts: Tensor, value: Tensor | None = None, which: Tensor | None = None) -> Tensor:
        chosen = None if which is None else axes.list(which)
        stored = 0.0 if value is None or value.numel() == 0 else values.stored(value)
        if isinstance(stored, list):
            (stored,) = stored
        if stored is not None or value is None or mode != "constant":
            return _padded(x, pads.list(amounts), chosen, mode, stored or 0.0)
        inside = _padded(torch.ones_like(x, dtype=torch.bool), pads.list(amounts), chosen, mode, 0)
        return torch.where(inside, _padded(x, pads.list(amounts), chosen, mode, 0.0), value.reshape(()))

    return pad


def _padded(x: Tensor, pads: Sequence[int], axes: Sequence[int] | None, mode: str, value: float) -> Tensor:
    which = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in axes]
    begins = dict(zip(which, pads[: len(which)], strict=True))
    ends = dict(zip(which, pads[len(which) :], strict=True))
    if mode == "constant":
        flat = [side.get(axis, 0) for axis in reversed(range(x.dim())) for side in (begins, ends)]
        return functional.pad(x, flat, value=value) if any(flat) else x
    for axis in which:
        begin, end, size = begins[axis], ends[axis], x.shape[axis]
        if begin or end:
            place = torch.arange(-begin, size + end, device=x.device)
            x = x.index_select(axis, _reflected(place, size, mode))
    return x


def _reflected(place: Tensor, size: int, mode: str) -> Tensor:
    if mode == "edge":
        return place.clamp(0, size - 1)
    if mode == "wrap":
        return place % size
    if mode != "reflect":
        raise ValueError(f"unknown padding mode '{mode}'")
    period = max(2 * (size - 1), 1)
    place = place % period
    return torch.where(place >= size, period - place, place)


@operator("Trilu")
def _trilu(node: Node) -> Kernel:
    function = torch.triu if node.flag("upper", True) else torch.tril
    diagonal = node.host(1)

    def trilu(x: Tensor, k: Tensor | None = None) -> Tensor:
        return function(x, 0 if k is None else diagonal.scalar(k))

    return trilu


@operator("Dropout", pure=False, note="the identity unless a training mode asks for it; seeded")
def _dropout(node: Node) -> Kernel:
    mask = node.wants(1)
    if node.version < 12 or not node.has(2):
        return lambda x, *_: (x, torch.ones_like(x, dtype=torch.bool)) if mask else x
    ratio, training, seed = node.host(1), node.host(2), node.int("seed", node.seed)

    def dropout(x: Tensor, rate: Tensor | None, train: Tensor) -> tuple[Tensor, Tensor]:
        if not training.scalar(train):
            return x, torch.ones_like(x, dtype=torch.bool)
        share = 0.5 if rate is None else ratio.scalar(rate)
        generator = torch.Generator(device=x.device).manual_seed(int(seed))
        kept = torch.rand(x.shape, generator=generator, device=x.device) >= share
        return torch.where(kept, x / (1 - (share if rate is None else rate)), 0), kept

    return dropout
