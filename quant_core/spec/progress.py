"""How a running job tells where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Stage = Literal[
    "ingest", "rounding", "sensitivity", "allocation", "calibration", "export", "verification", "report"
]
STAGES: tuple[Stage, ...] = (
    "ingest",
    "rounding",
    "sensitivity",
    "allocation",
    "calibration",
    "export",
    "verification",
    "report",
)


class Progress(BaseModel):
    """One step of a running job.

    Attributes:
        stage: The stage at work.
        fraction: How much of this stage is done, from 0 to 1.
        message: What it is doing, for people.
    """

    model_config = ConfigDict(frozen=True)

    stage: Stage
    fraction: float = Field(ge=0, le=1)
    message: str = ""


ProgressCallback = Callable[[Progress], None]
"""Called between units of work; raising `quant_core.errors.CancelledError` from it stops the job."""

Tell = Callable[[float, str], None]
"""Told, within one stage, the fraction that is done and what is being done; may raise as well."""


def tell_nobody(fraction: float, message: str) -> None:
    """Tell where the work is where nobody asked."""
