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
        single: Whether a sample is a single value.
        samples: Samples seen.
        same: Positions at which both name the same class.
        positions: Positions seen: one a sample, or one a token or pixel.
    """

    name: str
    signal: float = 0.0
    noise: float = 0.0
    power: float = 0.0
    product: float = 0.0
    cosine: float = 0.0
    single: bool = False
    samples: int = 0
    same: int = 0
    positions: int = 0

    def add(self, reference: Array, values: Array) -> None:
        """Take in one batch.

        Args:
            reference: Output of the float model, samples along the first axis.
            values: Output of the quantized model, same shape.

        Raises:
            NonFiniteError: If either holds NaN or infinity where the other does not hold the same.
        """
        a, b = np.asarray(reference, np.float64), np.asarray(values, np.float64)
        a, b = self._finite(a, b)
        if a.ndim == 0:
            a, b = a.reshape(1), b.reshape(1)
        self.signal += float(np.vdot(a, a))
        self.noise += float(np.vdot(a - b, a - b))
        self.power += float(np.vdot(b, b))
        self.product += float(np.vdot(a, b))
        self.single = a.size == len(a)
        self.cosine += float(_cosines(a.reshape(len(a), -1), b.reshape(len(b), -1)).sum())
        self.samples += len(a)
        if a.ndim >= 2:
            same = a.argmax(class_axis(a)) == b.argmax(class_axis(b))
            self.same += int(same.sum())
            self.positions += same.size

    def _finite(self, a: Array, b: Array) -> tuple[Array, Array]:
        bad = ~(np.isfinite(a) & np.isfinite(b))
        if not bad.any():
            return a, b
        # Masked positions may hold the same infinity on both sides; they say nothing about quantization.
        if np.isnan(a).any() or np.isnan(b).any() or (a[bad] != b[bad]).any():
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


@dataclass
class MetricAccumulator:
    """Builds `Metrics` from batches of outputs.

    Attributes:
        classes: Whether the first output holds class logits; else it is an embedding or a regression.
        labelled: Whether labels come with every batch.
        differences: Running comparison by output name.
        correct: Right answers of the float and the quantized model.
        judged: Labels seen.
    """

    classes: bool
    labelled: bool = False
    differences: dict[str, Difference] = field(default_factory=dict)
    correct: tuple[int, int] = (0, 0)
    judged: int = 0

    def add(
        self, reference: Mapping[str, Array], values: Mapping[str, Array], labels: Array | None = None
    ) -> None:
        """Take in one batch.

        Args:
            reference: Output name -> output of the float model; the first one is the headline's.
            values: Output name -> output of the quantized model.
            labels: Integer classes of the batch, if there are labels.

        Raises:
            SamplesError: If the labels do not fit the first output.
        """
        for name, expected in reference.items():
            if expected.dtype.kind in "fiub":  # text outputs carry no noise to measure
                self.differences.setdefault(name, Difference(name)).add(expected, values[name])
        if labels is not None and self.classes:
            first = next(iter(reference))
            right = [count_correct(side[first], labels, first) for side in (reference, values)]
            self.correct = (self.correct[0] + right[0], self.correct[1] + right[1])
            self.judged += labels.size
        self.labelled = self.labelled or labels is not None

    def result(self) -> Metrics:
        """Close the books.

        Returns:
            The metrics of all batches so far. The headline is `top1` where there are labels and classes,
            `top1_agreement` where there are classes only, else `mean_cosine`.

        Raises:
            SamplesError: If there was nothing to compare.
        """
        if not self.differences:
            raise SamplesError(
                "There was no numeric output to compare.",
                remedy="Give at least one sample and a numeric output.",
            )
        first = next(iter(self.differences.values()))
        agreement = first.top1_agreement if self.classes else None
        if self.judged:
            name, before, after = "top1", self.correct[0] / self.judged, self.correct[1] / self.judged
        elif agreement is not None:
            name, before, after = "top1_agreement", 1.0, agreement
        else:
            name, before, after = "mean_cosine", 1.0, first.mean_cosine
        return Metrics(
            name=name,
            float=before,
            quantized=after,
            samples=first.samples,
            labelled=self.labelled,
            sqnr_db=first.sqnr_db,
            top1_agreement=agreement,
            mean_cosine=first.mean_cosine,
            sqnr_db_by_output={key: value.sqnr_db for key, value in self.differences.items()},
        )


def count_correct(logits: Array, labels: Array, name: str) -> int:
    """Count the labels that are the largest logit.

    Args:
        logits: Class logits, `[N, C]` or with positions as in `class_axis`.
        labels: Integer classes, the shape of the logits without their class axis.
        name: Name of the output, for messages.

    Returns:
        Number of right answers.

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
    return int((logits.argmax(axis) == labels).sum())


def _cosines(a: Array, b: Array) -> Array:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    same = (a == b).all(axis=1)
    return np.where(same, 1.0, np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0))
