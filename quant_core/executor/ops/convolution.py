"""Convolutions over one to three axes."""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.executor.node import Node
from quant_core.executor.ops.packed_convolution import PackedWeights, suits
from quant_core.executor.ops.spatial import Window, pad_spatial, symmetric, window
from quant_core.executor.registry import Kernel, operator

_CONV = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
_TRANSPOSED = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}


def convolve(node: Node) -> Kernel:
    """The kernel of a convolution; sizes of the window come from the weight where attributes are silent."""
    group = node.int("group", 1)
    windows: dict[tuple[int, ...], Window] = {}
    packed = PackedWeights()

    def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        sizes = tuple(weight.shape[2:])
        found = windows.get(sizes)
        if found is None:
            found = windows.setdefault(sizes, window(node, sizes))
        function = _CONV.get(len(sizes))
        if function is None:
            raise node.invalid(f"over {len(sizes)} axes is not supported; one to three are.")
        pads = found.padding(x.shape[2:])
        even = symmetric(pads)
        if even is None:
            return function(pad_spatial(x, pads), weight, bias, found.strides, 0, found.dilations, group)
        if suits(x, weight):
            return packed.convolve(x, weight, bias, found.strides, even, found.dilations, group)
        return function(x, weight, bias, found.strides, even, found.dilations, group)

    return conv


@operator("Conv", note="one to three spatial axes")
def _conv(node: Node) -> Kernel:
    return convolve(node)


@operator("ConvTranspose", note="one to three spatial axes")
def _conv_transpose(node: Node) -> Kernel:
    group = node.int("group", 1)
    auto_pad = node.string("auto_pad", "NOTSET")

    def transposed(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        sizes = tuple(weight.shape[2:])
        rank = len(sizes)
        function = _TRANSPOSED.get(rank)
        if function is None:
            raise node.invalid(f"over {rank} axes is not supported; one to three are.")
        strides, dilations = node.ints("strides", (1,) * rank), node.ints("dilations", (1,) * rank)
        extra = node.ints("output_padding", (0,) * rank)
        asked = node.ints("output_shape")
        pads = node.ints("pads", (0,) * (2 * rank)) if auto_pad == "NOTSET" else (0,) * (2 * rank)
        full = [
            (size - 1) * stride + dilation * (kernel - 1) + 1
            for size, stride, dilation, kernel in zip(x.shape[2:], strides, dilations, sizes, strict=True)
        ]
        if asked is not None or auto_pad.startswith("SAME"):
            target = asked[-rank:] if asked else [s * k for s, k in zip(x.shape[2:], strides, strict=True)]
            pads = _total_padding(full, extra, target, auto_pad)
        # The whole transposed convolution, then cropped: torch's own padding is symmetric only.
        begins, ends = pads[:rank], pads[rank:]
        if (
            begins == ends
            and min(begins) >= 0
            and all(e < s or e < d for e, s, d in zip(extra, strides, dilations, strict=True))
        ):
            return function(x, weight, bias, strides, begins, extra, group, dilations)
        y = function(x, weight, bias, strides, 0, 0, group, dilations)
        crop = [-begin for begin in begins] + [more - end for more, end in zip(extra, ends, strict=True)]
        if max(crop) <= 0 or bias is None:
            return pad_spatial(y, crop)
        y = pad_spatial(y - bias.reshape(-1, *(1,) * rank), crop)
        return y + bias.reshape(-1, *(1,) * rank)

    return transposed


def _total_padding(
    full: list[int], extra: tuple[int, ...], target: list[int], auto_pad: str
) -> tuple[int, ...]:
    begins, ends = [], []
    for size, more, wanted in zip(full, extra, target, strict=True):
        total = size + more - wanted
        half = total // 2
        begins.append(half if auto_pad == "SAME_UPPER" else total - half)
        ends.append(total - begins[-1])
    return (*begins, *ends)
