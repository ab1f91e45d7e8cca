"""What a method found, as arrays over layers and bit-widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quant_core.sensitivity.curvature.traces import Floats, TraceEstimate
from quant_core.sensitivity.estimators.activations import ActivationTraces
from quant_core.sensitivity.estimators.interaction import Interactions
from quant_core.sensitivity.estimators.output import LossIncrease


@dataclass(frozen=True, eq=False)
class Findings:
    """What a method found; None for what it does not give.

    Attributes:
        samples: Number of samples used.
        stopped: Why it ended.
        probes: Number of random probes.
        trace: Tr(H_i), one a layer; NaN where it is not finite.
        trace_stderr: Its standard error.
        eigenvalue: Largest eigenvalue of H_i.
        score: Expected loss increase, layers x bit-widths; NaN where it is not finite or was not asked for.
        score_stderr: Its standard error.
        interactions: Loss increases of pairs of layers.
        similarity: Similarity of the outputs of every two layers.
    """

    samples: int
    stopped: str
    probes: int = 0
    trace: Floats | None = None
    trace_stderr: Floats | None = None
    eigenvalue: Floats | None = None
    score: Floats | None = None
    score_stderr: Floats | None = None
    interactions: Interactions | None = None
    similarity: Floats | None = None


def join_traces(parts: Sequence[TraceEstimate]) -> TraceEstimate:
    """Put the traces of groups of layers together.

    Args:
        parts: Estimates of different layers.

    Returns:
        One estimate of all layers; errors of shares count those of the layer alone.
    """
    trace = np.concatenate([part.trace for part in parts])
    stderr = np.concatenate([part.stderr for part in parts])
    total = float(np.nansum(trace))
    return TraceEstimate(
        trace=trace,
        stderr=stderr,
        share_stderr=stderr / abs(total) if total else stderr,
        probes=sum(part.probes for part in parts),
        samples=max(part.samples for part in parts),
        stopped="; ".join(dict.fromkeys(part.stopped for part in parts)),
    )


def join_activations(parts: Sequence[ActivationTraces]) -> ActivationTraces:
    """Put the traces in the inputs of groups of layers together.

    Args:
        parts: Estimates for different layers, which may read the same tensors.

    Returns:
        One estimate of all their inputs; that of the first group for a tensor that several read.
    """
    first = {name: (part, k) for part in reversed(parts) for k, name in enumerate(part.tensors)}
    names = tuple(dict.fromkeys(name for part in parts for name in part.tensors))
    return ActivationTraces(
        tensors=names,
        trace=np.array([first[name][0].trace[first[name][1]] for name in names]),
        stderr=np.array([first[name][0].stderr[first[name][1]] for name in names]),
        elements=tuple(first[name][0].elements[first[name][1]] for name in names),
        probes=sum(part.probes for part in parts),
        samples=max(part.samples for part in parts),
        stopped="; ".join(dict.fromkeys(part.stopped for part in parts)),
    )


def join_increases(parts: Sequence[LossIncrease]) -> LossIncrease:
    """Put the measured increases of groups of layers together.

    Args:
        parts: Measurements of different layers.

    Returns:
        One measurement of all layers.
    """
    return LossIncrease(
        _stack([part.increase for part in parts]),
        _stack([part.stderr for part in parts]),
        max(part.samples for part in parts),
        "; ".join(dict.fromkeys(part.stopped for part in parts)),
    )


def join_findings(parts: Sequence[Findings]) -> Findings:
    """Put findings of traces and scores for groups of layers together.

    Args:
        parts: Findings of different layers, by one method.

    Returns:
        One of all layers.
    """
    traces = [part.trace for part in parts if part.trace is not None]
    errors = [part.trace_stderr for part in parts if part.trace_stderr is not None]
    scores = [part.score for part in parts if part.score is not None]
    return Findings(
        samples=max(part.samples for part in parts),
        stopped="; ".join(dict.fromkeys(part.stopped for part in parts)),
        probes=sum(part.probes for part in parts),
        trace=np.concatenate(traces) if traces else None,
        trace_stderr=np.concatenate(errors) if errors else None,
        score=_stack(scores) if scores else None,
    )


def _stack(tables: Sequence[Floats]) -> Floats:
    width = max(table.shape[1] for table in tables)
    return np.concatenate(
        [np.pad(t, ((0, 0), (0, width - t.shape[1])), constant_values=np.nan) for t in tables]
    )
