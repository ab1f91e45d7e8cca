"""Reading images at arbitrary positions: grid sampling, deformable convolution, regions of interest."""

from __future__ import annotations

import itertools
import math
from functools import reduce

import torch
from torch import Tensor

from quant_core.executor.node import Node
from quant_core.executor.ops.spatial import window
from quant_core.executor.registry import Kernel, operator


def read(x: Tensor, places: list[Tensor], padding: str = "zeros") -> Tensor:
    """Values of an image at integer positions, zero outside if asked.

    Args:
        x: N x C x spatial.
        places: Per spatial axis, integer positions N x P.
        padding: zeros to read zero outside, anything else to clamp to the border.

    Returns:
        N x C x P.
    """
    n, channels = x.shape[:2]
    sizes = x.shape[2:]
    flat = torch.zeros_like(places[0])
    inside = torch.ones_like(places[0], dtype=torch.bool)
    for place, size in zip(places, sizes, strict=True):
        inside = inside & (place >= 0) & (place < size)
        flat = flat * size + place.clamp(0, size - 1)
    values = x.reshape(n, channels, -1).gather(2, flat.unsqueeze(1).expand(n, channels, -1))
    return torch.where(inside.unsqueeze(1), values, 0) if padding == "zeros" else values


def linear(x: Tensor, points: list[Tensor], padding: str = "zeros") -> Tensor:
    """Multilinear interpolation at real positions; differentiable in the image and the positions.

    Args:
        x: N x C x spatial.
        points: Per spatial axis, positions N x P in pixels.
        padding: zeros or border.

    Returns:
        N x C x P.
    """
    floors = [point.detach().floor() for point in points]
    fractions = [point - floor for point, floor in zip(points, floors, strict=True)]
    total = x.new_zeros(())
    for corner in itertools.product((0, 1), repeat=len(points)):
        places = [(floor + side).to(torch.int64) for floor, side in zip(floors, corner, strict=True)]
        weight = reduce(torch.mul, [f if side else 1 - f for f, side in zip(fractions, corner, strict=True)])
        total = total + read(x, places, padding) * weight.unsqueeze(1)
    return total


def _cubic_weights(fraction: Tensor) -> list[Tensor]:
    a = -0.75  # as torch's grid_sample has it

    def near(t: Tensor) -> Tensor:
        return ((a + 2) * t - (a + 3)) * t * t + 1

    def far(t: Tensor) -> Tensor:
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a

    return [far(fraction + 1), near(fraction), near(1 - fraction), far(2 - fraction)]


def _reflect(point: Tensor, size: int, align: bool) -> Tensor:
    """Positions reflected into the image at its corner centres, or at its edges."""
    low, high = (0.0, size - 1.0) if align else (-0.5, size - 0.5)
    span = high - low
    if span <= 0:
        return torch.zeros_like(point)
    shifted = torch.remainder(point - low, 2 * span)
    return torch.where(shifted > span, 2 * span - shifted, shifted) + low


def _pixels(grid: Tensor, size: int, align: bool) -> Tensor:
    return (grid + 1) / 2 * (size - 1) if align else ((grid + 1) * size - 1) / 2


@operator("GridSample", note="differentiable twice in image and grid; nearest only in the image")
def _grid_sample(node: Node) -> Kernel:
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(name := node.string("mode", "linear"), name)
    padding, align = node.string("padding_mode", "zeros"), node.flag("align_corners")

    def place(point: Tensor, size: int) -> Tensor:
        point = _reflect(point, size, align) if padding == "reflection" else point
        return point if padding == "zeros" else point.clamp(0, size - 1)

    def sample(x: Tensor, grid: Tensor) -> Tensor:
        sizes = x.shape[2:]
        coordinates = grid.reshape(grid.shape[0], -1, grid.shape[-1]).unbind(-1)
        points = [
            _pixels(point, size, align) for point, size in zip(reversed(coordinates), sizes, strict=True)
        ]
        if mode == "nearest":
            places = [
                place(p.detach(), size).round().to(torch.int64) for p, size in zip(points, sizes, strict=True)
            ]
            y = read(x, places, padding)
        elif mode == "linear":
            y = linear(x, [place(point, size) for point, size in zip(points, sizes, strict=True)], padding)
        else:
            y = cubic(x, points)
        return y.reshape(*x.shape[:2], *grid.shape[1:-1])

    def cubic(x: Tensor, points: list[Tensor]) -> Tensor:
        sizes = x.shape[2:]
        floors = [point.detach().floor() for point in points]
        weights = [_cubic_weights(point - floor) for point, floor in zip(points, floors, strict=True)]
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for taps in itertools.product(range(4), repeat=len(points)):
            places = [
                place(floor + tap - 1, size).to(torch.int64)
                for floor, tap, size in zip(floors, taps, sizes, strict=True)
            ]
            weight = reduce(torch.mul, [table[tap] for table, tap in zip(weights, taps, strict=True)])
            total = total + read(x, places, padding) * weight.unsqueeze(1)
        return total

    return sample


@operator("DeformConv", note="two spatial axes")
def _deform_conv(node: Node) -> Kernel:
    group, offset_group = node.int("group", 1), node.int("offset_group", 1)

    def deform(
        x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        found = window(node, weight.shape[2:])
        n, channels = x.shape[:2]
        rows, columns = weight.shape[2:]
        height, width = offset.shape[2:]
        taps = rows * columns
        shift = offset.reshape(n * offset_group, taps, 2, height, width)
        axes = []
        for axis, (count, out) in enumerate(((rows, height), (columns, width))):
            base = torch.arange(out, device=x.device) * found.strides[axis] - found.pads[axis]
            tap = torch.arange(count, device=x.device) * found.dilations[axis]
            tap = tap.reshape(-1, 1) if axis == 0 else tap.reshape(1, -1)
            tap = tap.expand(rows, columns).reshape(1, taps, 1, 1)
            base = base.reshape(1, 1, -1, 1) if axis == 0 else base.reshape(1, 1, 1, -1)
            axes.append((base + tap + shift[:, :, axis]).reshape(n * offset_group, -1))
        groups = x.reshape(n * offset_group, channels // offset_group, *x.shape[2:])
        columns_of = linear(groups, axes).reshape(
            n, offset_group, channels // offset_group, taps, height, width
        )
        if mask is not None:
            columns_of = columns_of * mask.reshape(n, offset_group, 1, taps, height, width)
        patches = columns_of.reshape(n, group, channels // group * taps, height * width)
        kernel = weight.reshape(group, weight.shape[0] // group, -1)
        y = torch.einsum("gok,ngkp->ngop", kernel, patches).reshape(n, weight.shape[0], height, width)
        return y if bias is None else y + bias.reshape(1, -1, 1, 1)

    return deform


@operator("RoiAlign", note="average mode twice differentiable in the image and the regions")
def _roi_align(node: Node) -> Kernel:
    default = "half_pixel" if node.version >= 16 else "output_half_pixel"
    half = node.string("coordinate_transformation_mode", default) == "half_pixel"
    mode, ratio = node.string("mode", "avg"), node.int("sampling_ratio", 0)
    out = node.int("output_height", 1), node.int("output_width", 1)
    scale = node.float("spatial_scale", 1.0)

    def one(x: Tensor, roi: Tensor) -> Tensor:
        corners = roi * scale - (0.5 if half else 0.0)
        grids = []
        for axis, size in enumerate(out):
            start, end = corners[1 - axis], corners[3 - axis]
            extent = end - start if half else torch.clamp(end - start, min=1.0)
            count = ratio if ratio > 0 else math.ceil(float(extent.detach()) / size)
            step = torch.arange(size * max(count, 1), device=x.device, dtype=x.dtype)
            grids.append((start + (step + 0.5) * extent / (size * max(count, 1)), max(count, 1)))
        (ys, down), (xs, across) = grids
        height, width = x.shape[2:]
        y, z = (part.reshape(1, -1) for part in torch.meshgrid(ys, xs, indexing="ij"))
        inside = ((y >= -1) & (y <= height) & (z >= -1) & (z <= width)).unsqueeze(1)
        points = [y.clamp(0, height - 1), z.clamp(0, width - 1)]
        if mode == "avg":
            values = torch.where(inside, linear(x, points, "border"), 0)
        else:
            values = torch.where(inside, _largest_corner(x, points), 0)
        values = values.reshape(x.shape[1], out[0], down, out[1], across)
        return values.mean((2, 4)) if mode == "avg" else values.amax((2, 4))

    def align(x: Tensor, rois: Tensor, batch: Tensor) -> Tensor:
        regions = [one(x[image : image + 1], roi) for roi, image in zip(rois, batch.tolist(), strict=True)]
        return torch.stack(regions) if regions else x.new_zeros(0, x.shape[1], *out)

    return align


def _largest_corner(x: Tensor, points: list[Tensor]) -> Tensor:
    """The largest of the four weighted corners, which is what the maximum mode is defined by."""
    floors = [point.detach().floor() for point in points]
    corners = []
    for corner in itertools.product((0, 1), repeat=2):
        weight = torch.ones_like(points[0])
        for point, floor, side in zip(points, floors, corner, strict=True):
            weight = weight * ((point - floor) if side else (1 - point + floor))
        places = [(floor + side).to(torch.int64) for floor, side in zip(floors, corner, strict=True)]
        corners.append(read(x, places, "border") * weight.unsqueeze(1))
    return torch.stack(corners).amax(0)


@operator("MaxRoiPool")
def _max_roi_pool(node: Node) -> Kernel:
    rows, columns = node.ints("pooled_shape")
    scale = node.float("spatial_scale", 1.0)

    def edges(start: int, end: int, count: int, size: int) -> list[tuple[int, int]]:
        extent = max(end - start + 1, 1)
        found = []
        for index in range(count):
            low = math.floor(index * extent / count) + start
            high = math.ceil((index + 1) * extent / count) + start
            found.append((min(max(low, 0), size), min(max(high, 0), size)))
        return found

    def pool(x: Tensor, rois: Tensor) -> Tensor:
        results = []
        for image, left, top, right, bottom in rois.detach().tolist():
            box = [math.floor(value * scale + 0.5) for value in (left, top, right, bottom)]
            cells = []
            for low, high in edges(box[1], box[3], rows, x.shape[2]):
                for first, last in edges(box[0], box[2], columns, x.shape[3]):
                    part = x[int(image), :, low:high, first:last]
                    cells.append(part.amax((1, 2)) if part.numel() else x.new_zeros(x.shape[1]))
            results.append(torch.stack(cells, -1).reshape(x.shape[1], rows, columns))
        return torch.stack(results) if results else x.new_zeros(0, x.shape[1], rows, columns)

    return pool
