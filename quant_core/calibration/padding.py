"""Samples of different lengths, filled up at the end of an axis, cut back to the longest of those that are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Filled:
    """An input whose samples are filled up.

    Attributes:
        name: Graph input.
        axis: The axis, not that of the samples.
        value: What fills it.
    """

    name: str
    axis: int
    value: float


@dataclass(frozen=True)
class Padding:
    """An axis that several inputs share, whose end no output depends on.

    Attributes:
        inputs: The inputs that have it.
    """

    inputs: tuple[Filled, ...]

    def shorten(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Cut off what is padding in all samples.

        Args:
            inputs: Graph input name -> array, first axis samples.

        Returns:
            The same samples, as long as the longest of them.
        """
        length, shortened = int(self.lengths(inputs).max(initial=1)), dict(inputs)
        for each in self.inputs:
            kept = np.moveaxis(np.moveaxis(inputs[each.name], each.axis, 0)[:length], 0, each.axis)
            shortened[each.name] = np.ascontiguousarray(kept)
        return shortened

    def lengths(self, inputs: Mapping[str, Array]) -> npt.NDArray[np.int64]:
        """Count the places of each sample up to the last that holds something else than what fills it.

        Args:
            inputs: Graph input name -> array, first axis samples.

        Returns:
            At least 1 for each, `[N]`.
        """
        longest = np.ones(1, np.int64)
        for each in self.inputs:
            places = np.moveaxis(inputs[each.name], each.axis, 1)
            used = (places != each.value).reshape(*places.shape[:2], -1).any(2)
            last = used.shape[1] - used[:, ::-1].argmax(1)
            longest = np.maximum(longest, np.where(used.any(1), last, 1))
        return longest
