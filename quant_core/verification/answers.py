"""Right and wrong answers of class logits, counted batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant_core.errors import SamplesError
from quant_core.verification.intervals import Interval, change_interval, mean_interval, share_interval

Array = NDArray[Any]


def class_axis(values: Array) -> int:
    """Tell which axis of class logits runs over the classes.

    Args:
        values: Logits `[N, C]`, `[N, T, C]` for tokens, `[N, C, H, W]` or `[N, C, D, H, W]` for pixels.

    Returns:
        1 for pixels, else the last axis.
    """
    return 1 if values.ndim >= 4 else values.ndim - 1


def find_correct(logits: Array, labels: Array, name: str) -> Array:
    """Tell where the label is the largest logit.

    Args:
        logits: Class logits, `[N, C]` or with positions as in `class_axis`.
        labels: Integer classes, the shape of the logits without their class axis.
        name: Name of the output, for messages.

    Returns:
        Whether the answer is right, the shape of the labels.

    Raises:
        SamplesError: If the labels' shape or range does not fit the logits.
    """
    axis = class_axis(logits) if logits.ndim >= 2 else 0
    expected = logits.shape[:axis] + logits.shape[axis + 1 :]
    if logits.ndim < 2 or labels.shape != expected:
        raise SamplesError(
            f"Labels of shape {list(labels.shape)} do not fit the output {name} of shape {list(logits.shape)}.",
            remedy="Give one integer class per sample, or leave the labels out.",
            where="labels",
        )
    classes = logits.shape[axis]
    if labels.dtype.kind not in "iu" or (labels.size and not 0 <= labels.min() <= labels.max() < classes):
        raise SamplesError(
            f"Labels must be integers from 0 to {classes - 1}, the classes of output {name}.",
            remedy="Number the classes as the model does.",
            where="labels",
        )
    right: Array = logits.argmax(axis) == labels
    return right


@dataclass
class Answers:
    """Running count of right answers of the float and the quantized model.

    Attributes:
        samples: Samples seen.
        judged: Labels seen: one a sample, or one a token or pixel.
        right: Right answers of each model.
        lost: Right answers of the float model alone.
        won: Right answers of the quantized model alone.
        sums: Sums over samples: of the quantized model's share of right answers, of the change, and of their squares.
    """

    samples: int = 0
    judged: int = 0
    right: tuple[int, int] = (0, 0)
    lost: int = 0
    won: int = 0
    sums: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def add(self, before: Array, after: Array) -> None:
        """Take in one batch.

        Args:
            before: Whether the float model is right, samples along the first axis.
            after: The same of the quantized model.
        """
        self.samples += len(before)
        self.judged += before.size
        self.right = (self.right[0] + int(before.sum()), self.right[1] + int(after.sum()))
        self.lost += int((before & ~after).sum())
        self.won += int((after & ~before).sum())
        share = after.reshape(len(after), -1).mean(axis=1)
        change = share - before.reshape(len(before), -1).mean(axis=1)
        parts = (share, change, np.square(share), np.square(change))
        a, b, c, d = (total + float(part.sum()) for total, part in zip(self.sums, parts, strict=True))
        self.sums = (a, b, c, d)

    @property
    def shares(self) -> tuple[float, float]:
        """Shares of right answers of the float and the quantized model."""
        return self.right[0] / self.judged, self.right[1] / self.judged

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the quantized model's share; positions of one sample count as one."""
        if self.judged == self.samples:
            return share_interval(self.right[1], self.samples)
        return mean_interval(self.sums[0], self.sums[2], self.samples)

    @property
    def change(self) -> Interval | None:
        """95 % interval of the quantized model's share less the float model's, sample by sample."""
        if self.judged == self.samples:
            return change_interval(self.lost, self.won, self.samples)
        return mean_interval(self.sums[1], self.sums[3], self.samples)
