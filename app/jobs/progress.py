"""From the progress of one stage to the progress of the job."""

from __future__ import annotations

from quant_core.spec import STAGES, JobKind, Progress, Stage

# Shares of the wall time of a ResNet-20 at default settings; they steer a bar and decide nothing.
_SHARES: dict[Stage, float] = {
    "ingest": 0.02,
    "rounding": 0.06,
    "sensitivity": 0.78,
    "allocation": 0.01,
    "calibration": 0.06,
    "export": 0.01,
    "verification": 0.05,
    "report": 0.01,
}


_ANALYSIS: frozenset[Stage] = frozenset({"ingest", "rounding", "sensitivity", "report"})


def overall(progress: Progress, kind: JobKind = "quantize") -> float:
    """Place a step within the whole job.

    Args:
        progress: Stage and the share of it that is done.
        kind: What the job does; an analysis has fewer stages.

    Returns:
        Share of the whole job, 0 to 1.
    """
    shares = {s: share for s, share in _SHARES.items() if kind == "quantize" or s in _ANALYSIS}
    before = sum(shares.get(stage, 0.0) for stage in STAGES[: STAGES.index(progress.stage)])
    done = before + shares.get(progress.stage, 0.0) * progress.fraction
    return min(1.0, done / sum(shares.values()))
