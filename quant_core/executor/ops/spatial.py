"""Window arithmetic shared by convolution and pooling: padding, strides and dilations along the spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from quant_core.executor.node import Node


@dataclass(frozen=True)
class Window:
    """A sliding window.

    Attributes:
        kernel: Size along each spatial axis.
        strides: Steps along each spatial axis.
        dilations: Spacing of the taps along each spatial axis.
        pads: Begin paddings followed by end paddings, or None to follow `auto_pad`.
        auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str

    def padding(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Begin and end padding for spatial sizes; fixed unless `auto_pad` asks for equal output sizes."""
        if not self.auto_pad.startswith("SAME"):
            return self.pads
        begins, ends = [], []
        for size, kernel, stride, dilation in zip(
            shape, self.kernel, self.strides, self.dilations, strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
            small = total // 2
            begins.append(small if self.auto_pad == "SAME_UPPER" else total - small)
            ends.append(total - begins[-1])
        return (*begins, *ends)


def window(node: Node, kernel: Sequence[int]) -> Window:
    """The window a node's attributes describe.

    Args:
        node: A convolution or pooling node.
        kernel: Window size along each spatial axis.

    Returns:
        The window.
    """
    rank = len(kernel)
    auto_pad = node.string("auto_pad", "NOTSET")
    pads = (0,) * (2 * rank) if auto_pad == "VALID" else node.ints("pads", (0,) * (2 * rank))
    strides, dilations = node.ints("strides", (1,) * rank), node.ints("dilations", (1,) * rank)
    if (
        len(pads) != 2 * rank
        or len(strides) != rank
        or len(dilations) != rank
        or min((*strides, *dilations)) < 1
    ):
        raise node.invalid(f"has strides, dilations or pads that do not fit {rank} spatial axes.")
    return Window(tuple(kernel), strides, dilations, pads, auto_pad)


def pad_spatial(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """Pads the last axes with a constant; negative amounts crop.

    Args:
        x: Any tensor.
        pads: Begin paddings of the last `len(pads) / 2` axes followed by their end paddings.
        value: The constant.

    Returns:
        The padded tensor.
    """
    if not any(pads):
        return x
    rank = len(pads) // 2
    flat = [amount for axis in reversed(range(rank)) for amount in (pads[axis], pads[axis + rank])]
    return functional.pad(x, flat, value=value)


def symmetric(pads: Sequence[int]) -> tuple[int, ...] | None:
    """The per-axis padding if both sides are equal and not negative, else None."""
    rank = len(pads) // 2
    begins = tuple(pads[:rank])
    return begins if begins == tuple(pads[rank:]) and min(begins, default=0) >= 0 else None


def output_size(size: int, before: int, after: int, extent: int, stride: int, ceil_mode: bool) -> int:
    """Number of window positions along an axis; with `ceil_mode` none starts in the end padding."""
    span = size + before + after - extent
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + before:
        count -= 1
    return count
