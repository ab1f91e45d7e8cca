"""What the channels of a tensor held, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from quant_core.calibration import Samples
from quant_core.executor import Program


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """What a tensor's channels held.

    Attributes:
        low: Smallest value of each sample and channel, at most 0, `[N, C]`.
        high: Largest value, at least 0, `[N, C]`.
        squares: Mean square of each sample and channel, `[N, C]`.
    """

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]

    @property
    def square(self) -> npt.NDArray[np.float64]:
        """Mean square of each channel, `[C]`."""
        mean: npt.NDArray[np.float64] = self.squares.mean(0)
        return mean

    @property
    def extents(self) -> npt.NDArray[np.float64]:
        """Largest magnitude of each sample and channel, `[N, C]`."""
        extents: npt.NDArray[np.float64] = np.maximum(self.high, -self.low)
        return extents

    @property
    def extent(self) -> npt.NDArray[np.float64]:
        """Largest magnitude of each channel, `[C]`."""
        extent: npt.NDArray[np.float64] = self.extents.max(0)
        return extent

    @property
    def top(self) -> npt.NDArray[np.intp]:
        """The sample that holds the largest magnitude of each channel, `[C]`."""
        top: npt.NDArray[np.intp] = self.extents.argmax(0)
        return top

    def without_top(self) -> Self:
        """Leave out of each channel the sample that holds its largest magnitude.

        Returns:
            One sample less; all of them where there is but one.
        """
        samples = len(self.low)
        if samples == 1:
            return self
        others = np.arange(samples)[:, None] != self.top
        return type(self)(
            *(x.T[others.T].reshape(-1, samples - 1).T for x in (self.low, self.high, self.squares))
        )


def channel_statistics(
    program: Program,
    axes: Mapping[str, int],
    samples: Samples,
    *,
    batch_size: int,
) -> dict[str, ChannelStatistics]:
    """Collect extremes and mean squares of channels.

    Args:
        program: The float program.
        axes: Tensor -> its channel axis.
        samples: What to run.
        batch_size: Samples a run.

    Returns:
        Tensor -> statistics.
    """
    found: dict[str, list[tuple[torch.Tensor, ...]]] = {name: [] for name in axes}
    for batch in samples.batches(batch_size):
        feeds = batch.feeds(program.device, fast=True)
        with torch.no_grad():
            values = feeds | program.evaluate(feeds, outputs=[name for name in axes if name not in feeds])
            for name, axis in axes.items():
                x = values[name].movedim(axis, -1)
                # A run whose first axis does not count samples is one sample.
                rows = x.reshape(batch.count if len(x) == batch.count else 1, -1, x.shape[-1])
                found[name].append(
                    (
                        rows.amin(1).clamp_max(0),
                        rows.amax(1).clamp_min(0),
                        rows.square().mean(1),
                    )
                )
    result = {}
    for name, parts in found.items():
        result[name] = ChannelStatistics(
            *(torch.cat(part).double().cpu().numpy() for part in zip(*parts, strict=True))
        )
    return result
