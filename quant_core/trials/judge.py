"""A quantized file held against an accuracy band in onnxruntime, with a confidence interval over its samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from quant_core.calibration import Samples
from quant_core.errors import SpecError
from quant_core.sensitivity import Objective
from quant_core.spec import AccuracyBand
from quant_core.spec.budget import CONFIDENCE
from quant_core.trials.bounds import fewest_samples, mean_bound, samples_for, share_bound
from quant_core.verification import find_correct, open_session, run_batches
from quant_core.verification.answers import class_axis
from quant_core.verification.intervals import change_interval, share_interval

Floats = npt.NDArray[np.float64]

_NEPER = 10 / math.log(10)
_RESAMPLES = 2000
_EXACT = 1e-30  # share of the signal: 300 dB, for outputs without any noise
_FAR = float(np.finfo(np.float32).max)
"""Stands for infinity and NaN, which reports cannot hold."""


@dataclass(frozen=True)
class Verdict:
    """One file's value.

    Attributes:
        value: The band's metric.
        low: Lower end of its 95 % confidence interval.
        high: Upper end.
        inside: Whether `value`, and `expected` and `bound` where there are any, lie in the band.
        expected: For a drop of accuracy, what the float model's own probabilities say of it.
        bound: How bad it may be among all samples, at the confidence that was asked for; None where there are too few
            samples to show that any file keeps the band.
        needed: About how many samples it would take to show that this file keeps the band; None where it does not.
    """

    value: float
    low: float
    high: float
    inside: bool
    expected: float | None = None
    bound: float | None = None
    needed: int | None = None

    def worst(self, band: AccuracyBand) -> float:
        """Give what is held against the band.

        Args:
            band: The band.

        Returns:
            The worst of `value`, `expected` and `bound`.
        """
        values = [number for number in (self.value, self.expected, self.bound) if number is not None]
        return max(values) if band.falls else min(values)


class Judge:
    """Runs quantized files and the float file on the same samples, so that every comparison is paired.

    Attributes:
        band: The band.
        samples: Number of samples.
        labelled: Whether a drop is one of top-1 accuracy.
        confidence: How sure it must be that the chosen file keeps the band among all samples.
        fewest: Samples below which this cannot be shown of any file, not even of the float one.
    """

    def __init__(
        self,
        band: AccuracyBand,
        float_path: Path,
        samples: Samples,
        objective: Objective,
        batch_size: int,
        seed: int,
        *,
        confidence: float = CONFIDENCE,
        files: int = 1,
        literal: bool = False,
    ) -> None:
        """Run the float file once.

        Args:
            band: The band.
            float_path: The float file.
            samples: Samples that decided nothing.
            objective: The loss; tells whether outputs are classes.
            batch_size: Samples a run.
            seed: Seed of the bootstrap.
            confidence: How sure it must be that the chosen one of the files keeps the band among all samples.
            files: How many files will be judged before one is chosen. They share the chance of a mistake equally, so
                that the promise holds for the one that is chosen, however alike or unlike they are (Bonferroni).
            literal: Whether quantized files are run as they are written, without onnxruntime's rewrites.

        Raises:
            SpecError: If a drop was asked for and the output of the loss's first term holds no classes.
        """
        if band.metric == "drop" and not objective.terms[0].holds_classes:
            raise SpecError(
                f"{objective.terms[0].output!r} holds no classes, so that no answers can be counted.",
                remedy="Ask for sqnr>=20dB, cosine>=0.99 or loss<=0.05 instead.",
                where="max_drop",
            )
        self.band, self.samples, self.confidence = band, samples.count, confidence
        self._alpha = (1 - confidence) / files
        self.fewest = fewest_samples(band.limit, self._alpha) if band.metric == "drop" else 2
        self.labelled = samples.labels is not None and band.metric == "drop"
        self._samples, self._batch, self._seed = samples, batch_size, seed
        self._objective = Objective(
            tuple(
                replace(
                    term, tensor=term.output, probabilities=term.probabilities or term.tensor != term.output
                )
                for term in objective.terms
            )
        )
        self._literal = literal
        self._float = self._run(float_path)

    def judge(self, path: Path) -> Verdict:
        """Measure one file.

        Lost and won answers cancel, so that a drop counted on a few hundred samples is mostly chance, and a search that
        tries several files ends at a lucky one. Of samples that both models answer alike nothing is lost for sure; of
        the others the float model's probabilities p say what to expect, with much less chance in it:
        `mean_n p_n(float answer) - p_n(quantized answer)`. A file is inside only if both lie in the band, and so
        does the end of a one-sided confidence interval of the latter, or of the value where there is none.

        A cosine and a signal-to-noise ratio hold for each output that counts in the loss; the worst one is given.

        Args:
            path: The quantized file.

        Returns:
            The band's metric with its confidence interval.
        """
        values = self._run(path, literal=self._literal)
        names = [term.output for term in self._objective.terms]
        alike = self.band.metric in {"cosine", "sqnr"}
        # Of an output that is zero throughout there are no shares.
        judged = [name for name in names[1:] if alike and self._float[name].any()]
        found = [self._verdict(values, name) for name in (names[0], *judged)]
        return min(found, key=lambda verdict: (verdict.inside, verdict.worst(self.band)))

    def _verdict(self, values: Mapping[str, npt.NDArray[Any]], name: str) -> Verdict:
        """Measure one output."""
        expected = None
        before, after = self._float[name], values[name]
        if self.band.metric == "drop":
            value, low, high = self._drop(before, after, name)
            worse = self._expected_drop(before, after) if self.labelled else self._changed(before, after)
            expected = float(worse.mean()) if self.labelled else None
        elif self.band.metric == "loss":
            worse = self._increase(values)
            value, low, high = self._bootstrap(worse[:, None], lambda mean: mean[..., 0])
        else:
            a, b = (side.reshape(self.samples, -1) for side in _comparable(before, after))
            if self.band.metric == "cosine":
                dot, norms = (a * b).sum(1), np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
                same = np.divide(dot, norms, out=(a == b).all(1).astype(np.float64), where=norms > 0)
                value, low, high = self._bootstrap(same[:, None], lambda mean: mean[..., 0])
                worse = -same
            else:
                sums = np.stack([np.square(a).sum(1), np.square(a - b).sum(1)], axis=1)
                value, low, high = self._bootstrap(sums, _decibels)
                # What each sample adds to the ratio, to first order: a mean, which has a bound.
                shares = sums / np.maximum(sums.mean(axis=0), np.finfo(np.float64).tiny)
                worse = _NEPER * (shares[:, 1] - shares[:, 0]) - value
        verdict = Verdict(value, low, high, False, expected)
        if self.samples >= self.fewest:
            sparse, limit = (
                self.band.metric == "drop",
                self.band.limit if self.band.falls else -self.band.limit,
            )
            bound = (share_bound if sparse else mean_bound)(worse, self._alpha)
            needed = samples_for(worse, limit, self._alpha, sparse=sparse)
            verdict = replace(verdict, bound=bound if self.band.falls else -bound, needed=needed)
        return replace(verdict, inside=self.band.holds(verdict.worst(self.band)))

    def _run(self, path: Path, *, literal: bool = False) -> dict[str, npt.NDArray[Any]]:
        parts: dict[str, list[npt.NDArray[Any]]] = {}
        for _, values in run_batches(open_session(path, literal=literal), self._samples.inputs, self._batch):
            for term in self._objective.terms:
                parts.setdefault(term.output, []).append(values[term.output])
        return {name: np.concatenate(part) for name, part in parts.items()}

    def _drop(
        self, before: npt.NDArray[Any], after: npt.NDArray[Any], name: str
    ) -> tuple[float, float, float]:
        labels = self._samples.labels
        if labels is None:
            lost = self._changed(before, after)[:, None]
            if before.size == self.samples * before.shape[class_axis(before)]:
                count = float(lost.sum())
                return count / self.samples, *share_interval(count, self.samples)
        else:
            right, kept = (
                find_correct(side, labels, name).reshape(self.samples, -1).astype(np.float64)
                for side in (before, after)
            )
            lost = right - kept
            if lost.shape[1] == 1:
                dropped, gained = int((lost > 0).sum()), int((lost < 0).sum())
                low, high = change_interval(dropped, gained, self.samples)
                return (dropped - gained) / self.samples, -high, -low
        return self._bootstrap(lost.mean(axis=1)[:, None], lambda mean: mean[..., 0])

    def _changed(self, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Floats:
        axis = class_axis(before)
        changed = before.argmax(axis) != after.argmax(axis)
        return np.asarray(changed.reshape(self.samples, -1).mean(axis=1, dtype=np.float64))

    def _expected_drop(self, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Floats:
        term, axis = self._objective.terms[0], class_axis(before)
        scores = np.asarray(before, np.float64)
        if not term.probabilities:
            scores = np.exp(scores - scores.max(axis=axis, keepdims=True))
        scores /= scores.sum(axis=axis, keepdims=True)
        answers = np.expand_dims(after.argmax(axis), axis)
        lost = scores.max(axis=axis) - np.take_along_axis(scores, answers, axis).squeeze(axis)
        return np.asarray(lost.reshape(self.samples, -1).mean(axis=1))

    def _increase(self, values: Mapping[str, npt.NDArray[Any]]) -> Floats:
        labels = None if self._samples.labels is None else torch.from_numpy(self._samples.labels)
        rows, reference = (
            self._objective.rows({name: torch.from_numpy(side[name]) for name in side}, self.samples)
            for side in (values, self._float)
        )
        increase = self._objective.per_sample(rows, reference, labels) - self._objective.per_sample(
            reference, reference, labels
        )
        return np.asarray(np.nan_to_num(increase.double().numpy(), nan=_FAR, posinf=_FAR, neginf=-_FAR))

    def _bootstrap(self, table: Floats, metric: Any) -> tuple[float, float, float]:
        """Percentiles over resampled samples of a function of column means."""
        rng = np.random.default_rng(self._seed)
        counts = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), _RESAMPLES)
        low, high = np.percentile(metric(counts @ table / len(table)), [2.5, 97.5])
        return float(metric(table.mean(axis=0))), float(low), float(high)


def _comparable(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Two outputs in finite numbers; what is not finite on one side alone is as wrong as can be."""
    a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
    masked = np.isinf(a) & (a == b)  # says nothing about quantization
    a = np.nan_to_num(np.where(masked, 0.0, a), nan=0.0, posinf=_FAR, neginf=-_FAR)
    return a, np.where(masked, 0.0, np.where(np.isfinite(b), b, np.where(a > 0, -_FAR, _FAR)))


def _decibels(sums: Floats) -> Floats:
    """Between -300 and 300; 300 where there is no noise, whatever the signal."""
    signal, noise = sums[..., 0], sums[..., 1]
    exact = noise == 0
    ratio = np.where(exact, 1 / _EXACT, signal / np.where(exact, 1, noise))
    return np.asarray(10 * np.log10(np.clip(ratio, _EXACT, 1 / _EXACT)))
