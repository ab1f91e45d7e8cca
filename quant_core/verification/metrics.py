"""How far the quantized model's outputs are from the float model's, batch by batch in constant memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant_core.errors import NonFiniteError, SamplesError
from quant_core.spec import Metrics
from quant_core.verification.intervals import Interval, change_interval, mean_interval, share_interval

LARGEST_DB = 200.0
"""Stands for "no difference at all": float32 itself resolves about 150 dB."""

Array = NDArray[Any]


def sqnr_db(signal: float, noise: float) -> float:
    r"""Signal-to-quantization-noise ratio, :math:`10 \log_{10}(\sum y^2 / \sum (y - \hat y)^2)`.

    Args:
        signal: Sum of squares of the reference.
        noise: Sum of squared differences.

    Returns:
        Decibels, cut to `LARGEST_DB` either way so that it stays finite.
    """
    if noise == 0:
        return LARGEST_DB
    if signal == 0:
        return -LARGEST_DB
    return float(np.clip(10 * (np.log10(signal) - np.log10(noise)), -LARGEST_DB, LARGEST_DB))


def class_axis(values: Array) -> int:
    """Tell which axis of class logits runs over the classes.

    Args:
        values: Logits `[N, C]`, `[N, T, C]` for tokens, `[N, C, H, W]` or `[N, C, D, H, W]` for pixels.

    Returns:
        1 for pixels, else the last axis.
    """
    return 1 if values.ndim >= 4 else values.ndim - 1


@dataclass
class Difference:
    """Running comparison of one output with its reference.

    Attributes:
        name: Name of the output, for messages.
        signal: Sum of squares of the reference.
        noise: Sum of squared differences.
        power: Sum of squares of the compared values.
        product: Sum of the products of both.
        cosine: Sum over samples of the cosine between the flattened outputs.
        cosine_squares: Sum of their squares.
        single: Whether a sample is a single value.
        samples: Samples seen.
        same: Positions at which both name the same class.
        positions: Positions seen: one a sample, or one a token or pixel.
        shares: Sum over samples of the share of positions at which both name the same class.
        share_squares: Sum of their squares.
    """

    name: str
    signal: float = 0.0
    noise: float = 0.0
    power: float = 0.0
    product: float = 0.0
    cosine: float = 0.0
    cosine_squares: float = 0.0
    single: bool = False
    samples: int = 0
    same: int = 0
    positions: int = 0
    shares: float = 0.0
    share_squares: float = 0.0

    def add(self, reference: Array, values: Array) -> None:
        """Take in one batch.

        Args:
            reference: Output of the float model, samples along the first axis.
            values: Output of the quantized model, same shape.

        Raises:
            NonFiniteError: If either holds NaN or infinity where the other does not hold the same.
        """
        a, b = np.asarray(reference, np.float64), np.asarray(values, np.float64)
        if not a.size:  # a selection may find nothing
            return
        a, b = self._finite(a, b)
        if a.ndim == 0:
            a, b = a.reshape(1), b.reshape(1)
        self.signal += float(np.vdot(a, a))
        self.noise += float(np.vdot(a - b, a - b))
        self.power += float(np.vdot(b, b))
        self.product += float(np.vdot(a, b))
        self.single = a.size == len(a)
        cosines = _cosines(a.reshape(len(a), -1), b.reshape(len(b), -1))
        self.cosine += float(cosines.sum())
        self.cosine_squares += float(np.square(cosines).sum())
        self.samples += len(a)
        if a.ndim >= 2:
            same = a.argmax(class_axis(a)) == b.argmax(class_axis(b))
            self.same += int(same.sum())
            self.positions += same.size
            shares = same.reshape(len(a), -1).mean(axis=1)
            self.shares += float(shares.sum())
            self.share_squares += float(np.square(shares).sum())

    def _finite(self, a: Array, b: Array) -> tuple[Array, Array]:
        bad = ~(np.isfinite(a) & np.isfinite(b))
        if not bad.any():
            return a, b
        # Masked positions may hold the same infinity on both sides; they say nothing about quantization. NaN is never
        # the same.
        if (a[bad] != b[bad]).any():
            raise NonFiniteError(
                "The output holds NaN or infinity.",
                remedy="Check the samples and the float model; keep the layers before this output in float.",
                where=self.name,
            )
        return np.where(bad, 0.0, a), np.where(bad, 0.0, b)

    @property
    def sqnr_db(self) -> float:
        """Signal-to-quantization-noise ratio in decibels."""
        return sqnr_db(self.signal, self.noise)

    @property
    def mean_cosine(self) -> float:
        """Mean cosine over the samples; of all samples as one vector where each has a single value."""
        if self.single:  # the cosine of two numbers is but their signs
            norms = math.sqrt(self.signal * self.power)
            return min(1.0, self.product / norms) if norms > 0 else float(self.noise == 0)
        return self.cosine / max(self.samples, 1)

    @property
    def top1_agreement(self) -> float | None:
        """Share of positions at which both name the same class; None if the output has no class axis."""
        return self.same / self.positions if self.positions else None

    @property
    def cosine_interval(self) -> Interval | None:
        """95 % interval of the mean cosine; None where a sample is a single value."""
        if self.single:
            return None
        found = mean_interval(self.cosine, self.cosine_squares, self.samples)
        return None if found is None else (max(-1.0, found[0]), min(1.0, found[1]))

    @property
    def agreement_interval(self) -> Interval | None:
        """95 % interval of the agreement; positions of one sample depend on each other and count as one."""
        if not self.positions:
            return None
        if self.positions == self.samples:
            return share_interval(self.same, self.samples)
        found = mean_interval(self.shares, self.share_squares, self.samples)
        return None if found is None else (max(0.0, found[0]), min(1.0, found[1]))


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


@dataclass
class MetricAccumulator:
    """Builds `Metrics` from batches of outputs.

    Attributes:
        classes: Whether the headline's output holds class logits; else it is an embedding or a regression.
        headline: The output that the headline is of; None for the first.
        labelled: Whether labels come with every batch.
        differences: Running comparison by output name.
        answers: Right and wrong answers of both models.
        resized: Outputs that the two models gave in different sizes, as selections may be; they are not compared.
    """

    classes: bool
    headline: str | None = None
    labelled: bool = False
    differences: dict[str, Difference] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    resized: set[str] = field(default_factory=set)

    def add(
        self, reference: Mapping[str, Array], values: Mapping[str, Array], labels: Array | None = None
    ) -> None:
        """Take in one batch.

        Args:
            reference: Output name -> output of the float model.
            values: Output name -> output of the quantized model.
            labels: Integer classes of the batch, if there are labels.

        Raises:
            SamplesError: If the labels do not fit the headline's output.
        """
        for name, expected in reference.items():
            if expected.shape != values[name].shape:
                self.resized.add(name)
            elif expected.dtype.kind in "fiub":  # text outputs carry no noise to measure
                self.differences.setdefault(name, Difference(name)).add(expected, values[name])
        if labels is not None and self.classes:
            first = self.headline or next(iter(reference))
            self.answers.add(*(find_correct(side[first], labels, first) for side in (reference, values)))
        self.labelled = self.labelled or labels is not None

    def result(self) -> Metrics:
        """Close the books.

        Returns:
            The metrics of all batches so far. The headline is `top1` where there are labels and classes,
            `top1_agreement` where there are classes only, else `mean_cosine`.

        Raises:
            SamplesError: If there was nothing to compare.
        """
        found = {name: each for name, each in self.differences.items() if name not in self.resized}
        if not found or self.headline in self.resized:
            raise SamplesError(
                "There was no numeric output of a fixed size to compare.",
                remedy="Give at least one sample and a numeric output.",
            )
        first = found[self.headline] if self.headline else next(iter(found.values()))
        agreement = first.top1_agreement if self.classes else None
        change: Interval | None = None
        if self.answers.judged:
            name, (before, after) = "top1", self.answers.shares
            interval, change = self.answers.interval, self.answers.change
        elif agreement is not None:
            name, before, after, interval = "top1_agreement", 1.0, agreement, first.agreement_interval
        else:
            name, before, after, interval = "mean_cosine", 1.0, first.mean_cosine, first.cosine_interval
        return Metrics(
            name=name,
            float=before,
            quantized=after,
            samples=first.samples,
            labelled=self.labelled,
            sqnr_db=first.sqnr_db,
            top1_agreement=agreement,
            mean_cosine=first.mean_cosine,
            sqnr_db_by_output={key: value.sqnr_db for key, value in found.items()},
            interval=interval,
            change_interval=change,
        )


def count_correct(logits: Array, labels: Array, name: str) -> int:
    """Count the labels that are the largest logit.

    Args:
        logits: As in `find_correct`.
        labels: As in `find_correct`.
        name: Name of the output, for messages.

    Returns:
        Number of right answers.
    """
    return int(find_correct(logits, labels, name).sum())


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


def _cosines(a: Array, b: Array) -> Array:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    same = (a == b).all(axis=1)
    return np.where(same, 1.0, np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0))
