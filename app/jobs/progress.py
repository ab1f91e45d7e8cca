"""From the progress of one stage to the progress of the job."""

from __future__ import annotations

from quant_core.spec import STAGES, Progress, Stage

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


def overall(progress: Progress) -> float:
    """Place a step within the whole job.

    Args:
        progress: Stage and the share of it that is done.

    Returns:
        Share of the whole job, 0 to 1.
    """
    before = sum(_SHARES[stage] for stage in STAGES[: STAGES.index(progress.stage)])
    return min(1.0, before + _SHARES[progress.stage] * progress.fraction)
