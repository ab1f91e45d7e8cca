"""How far one output of the quantized model is from the float model's, batch by batch in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant_core.errors import NonFiniteError
from quant_core.verification.answers import class_axis
from quant_core.verification.intervals import Interval, mean_interval, share_interval

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


def _cosines(a: Array, b: Array) -> Array:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    same = (a == b).all(axis=1)
    return np.where(same, 1.0, np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0))
