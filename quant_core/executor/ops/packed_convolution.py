"""Convolutions over two axes by a weight that is laid out once as the processor's library reads it, and kept so.

torch lays a weight out anew in every call, which for a layer of many channels and few places takes as long as the
product itself. Whether it is kept is told from shapes, types and layout alone, so that results never depend on what ran
before.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.autograd import forward_ad

_FEWEST = 1 << 14
"""Elements of a weight that is worth it."""

_PRESENT = torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
    hasattr(torch.ops.mkldnn, name) for name in ("_reorder_convolution_weight", "_convolution_pointwise")
)


_Kept = tuple[weakref.ref[Tensor], int, Tensor]


def suits(x: Tensor, weight: Tensor) -> bool:
    """Tell whether a weight is worth laying out, and nothing wants to look inside the convolution.

    Args:
        x: Input of a convolution.
        weight: Its weight.

    Returns:
        True for large float32 weights over two axes on a processor, where no gradient is asked for.
    """
    return (
        _PRESENT
        and weight.numel() >= _FEWEST
        and x.dim() == weight.dim() == 4
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() > 0
        and not torch.is_grad_enabled()
        and not weight.is_inference()
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


class PackedWeights:
    """The weights of one node, each kept for as long as it is alive itself and not written to."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}

    def convolve(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        group: int,
    ) -> Tensor:
        """Convolve as `torch.conv2d` does.

        Args:
            x: Input, channels last in memory, for which `suits` is true.
            weight: Weight.
            bias: Bias, or None.
            strides: Steps along each axis.
            pads: Padding at both ends of each axis.
            dilations: Spacing of the taps along each axis.
            group: Groups.

        Returns:
            The output, channels last in memory.
        """
        where = [*pads], [*strides], [*dilations], group
        found = self._kept.get(id(weight))
        if found is None or found[0]() is not weight or found[1] != weight._version:
            packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *where, [*x.shape])
            found = weakref.ref(weight, partial(_forget, self._kept, id(weight))), weight._version, packed
            self._kept[id(weight)] = found
        given: Tensor = torch.ops.mkldnn._convolution_pointwise(x, found[2], bias, *where, "none", [], "")
        return given


def _forget(kept: dict[int, _Kept], key: int, dead: weakref.ref[Tensor]) -> None:
    held = kept.get(key)
    if held is not None and held[0] is dead:
        del kept[key]
