"""Traces averaged over batches of samples and random probes, with standard errors that hold for both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from quant_core.sensitivity.running.units import RunUnits, Unit, in_turn
from quant_core.spec.progress import Tell, tell_nobody

Floats = npt.NDArray[np.float64]
_FEW = 16
"""Batches, or probes of a single batch, before a standard error is believed."""

_PROBE_SHARE = 0.25
"""Once probes make up less than this share of the variance, more of them do not help."""


@dataclass(frozen=True, eq=False)
class TraceEstimate:
    """Hessian traces of the mean loss, one per layer.

    Attributes:
        trace: Tr(H_i), not divided by the number of parameters; NaN where a layer gave NaN or infinity.
        stderr: Standard error over samples and probes, for the population the samples were drawn from.
        share_stderr: Standard error of each layer's share of the sum of traces.
        probes: Number of random probes.
        samples: Number of samples seen.
        stopped: Why the estimate ended.
    """

    trace: Floats
    stderr: Floats
    share_stderr: Floats
    probes: int
    samples: int
    stopped: str


class Probing(TypedDict, total=False):
    """How far estimators go that average probes, as `average_traces` takes it.

    Attributes:
        tolerance: Wanted relative standard error of each share.
        max_probes: Most probes.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.
        run: Works the probes off.
    """

    tolerance: float
    max_probes: int
    on_progress: Tell
    run: RunUnits


def average_traces(
    probe: Unit,
    sizes: Sequence[int],
    *,
    tolerance: float = 0.05,
    max_probes: int = 2000,
    on_progress: Tell = tell_nobody,
    run: RunUnits = in_turn,
) -> TraceEstimate:
    """Visit the batches in turn, a fresh probe each time, until every layer's share is known well enough.

    A batch is a cluster: its probes are averaged first, and the spread between batches, which holds the spread of
    samples and of probes, gives the standard error. With shares `s_i = T_i / sum T` the error of a share follows
    from the residuals `t_i - s_i sum t` (delta method).

    Args:
        probe: Batch index and number of the probe -> one unbiased estimate per layer for that batch's mean loss.
        sizes: Samples in each batch.
        tolerance: Wanted standard error of each share, relative to the share; layers with less than a tenth of
            the average share are held to a tenth of it.
        max_probes: Most probes.
        on_progress: Called with the fraction done and a message after each probe.
        run: Works the probes off; the rule is applied after each of them in their order, however many run at a time.
            Where it ends early, time was up.

    Returns:
        The estimate.
    """
    sums: Floats = np.empty((0, 0))
    squares, counts = sums, np.zeros(len(sizes), dtype=np.int64)
    result: tuple[Floats, Floats, Floats] = (sums, sums, sums)
    done, progress, off, stopped = 0, 0.0, math.inf, ""
    order = ((number % len(sizes), number) for number in range(max_probes))
    with closing(run(probe, order)) as estimates:
        for done, estimate in enumerate(estimates, start=1):
            batch = (done - 1) % len(sizes)
            if done == 1:
                sums, squares = np.zeros((len(sizes), len(estimate))), np.zeros((len(sizes), len(estimate)))
            sums[batch] += estimate
            squares[batch] += estimate**2
            counts[batch] += 1
            with np.errstate(invalid="ignore", over="ignore"):
                result, off, probes_matter = _summarise(sums, squares, counts, np.asarray(sizes))
            progress = max(progress, done / max_probes, min(1.0, (tolerance / off) ** 2) if off > 0 else 0.0)
            known = f", shares known to {off:.1%}" if math.isfinite(off) else ""
            on_progress(progress, f"probe {done}{known}")
            believed = done >= min(_FEW, len(sizes)) if len(sizes) > 1 else done >= _FEW
            if believed and off <= tolerance:
                stopped = f"every share known to {tolerance:.1%}"
                break
            if batch == len(sizes) - 1 and done >= 2 * len(sizes) and len(sizes) > 1 and not probes_matter:
                stopped = f"shares known to {off:.1%}; only more samples would tell more"
                break
        else:
            limit = "probe limit" if done == max_probes else "time limit"
            stopped = f"{limit}; shares known to {off:.1%}" if math.isfinite(off) else limit
    seen = int(np.asarray(sizes)[counts > 0].sum())
    return TraceEstimate(*result, probes=done, samples=seen, stopped=stopped)


def probed_traces(
    estimates: Sequence[Floats], batches: Sequence[int], sizes: Sequence[int]
) -> tuple[Floats, Floats]:
    """Average probes that all have been taken, as `average_traces` does.

    Args:
        estimates: One unbiased estimate per layer from each probe.
        batches: Index of the batch that each probe was taken on.
        sizes: Samples in each batch.

    Returns:
        The traces and their standard errors; NaN where a layer gave NaN or infinity.
    """
    taken = np.asarray(estimates)
    sums = np.zeros((len(sizes), taken.shape[1]))
    squares, counts = np.zeros_like(sums), np.bincount(batches, minlength=len(sizes))
    with np.errstate(invalid="ignore", over="ignore"):
        np.add.at(sums, batches, taken)
        np.add.at(squares, batches, taken**2)
        (trace, stderr, _), _, _ = _summarise(sums, squares, counts, np.asarray(sizes))
    return trace, stderr


def _summarise(
    sums: Floats, squares: Floats, counts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> tuple[tuple[Floats, Floats, Floats], float, bool]:
    # Give (trace, stderr, share_stderr), the worst relative error of a share, and whether probes still add to it.
    seen = counts > 0
    mean, taken = sums[seen] / counts[seen, None], counts[seen]
    weight = (sizes[seen] / sizes[seen].sum())[:, None]
    within = (squares[seen] - taken[:, None] * mean**2) / np.maximum(taken[:, None] - 1, 1)
    probe_variance = (weight**2 * within / taken[:, None]).sum(axis=0)
    trace = (weight * mean).sum(axis=0)
    finite = np.isfinite(trace)
    total = trace[finite].sum()
    share = np.where(finite, trace, 0.0) / total if total != 0 else np.zeros_like(trace)
    clusters = len(mean)
    if clusters == 1:
        variance = probe_variance if taken[0] > 1 else np.full_like(trace, np.inf)
        share_variance = variance / total**2 if total != 0 else np.zeros_like(trace)
    else:
        spread = clusters / (clusters - 1) * weight**2
        variance = (spread * (mean - trace) ** 2).sum(axis=0)
        residual = mean - share * mean[:, finite].sum(axis=1, keepdims=True)
        share_variance = (spread * residual**2).sum(axis=0) / total**2 if total != 0 else np.zeros_like(trace)
    floor = 0.1 / max(1, int(finite.sum()))
    off = np.sqrt(share_variance[finite]) / np.maximum(np.abs(share[finite]), floor)
    matters = bool((probe_variance[finite] > _PROBE_SHARE * variance[finite]).any())
    bad = np.where(finite, 0.0, np.nan)
    result = (trace + bad, np.sqrt(variance) + bad, np.sqrt(share_variance) + bad)
    return result, float(off.max(initial=0.0)), matters
