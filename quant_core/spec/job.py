"""A job as the service tells of it: its state, where it stands, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from quant_core.errors import UserError
from quant_core.spec.analysis import AnalyzeSpec
from quant_core.spec.progress import Stage
from quant_core.spec.report import Report
from quant_core.spec.request import QuantizeSpec
from quant_core.spec.sensitivity import SensitivityTable

JobKind = Literal["quantize", "analyze"]
JobSpec = QuantizeSpec | AnalyzeSpec
"""What was asked. Written out in full, the two have different fields, so each is read back as what it was."""

RunningState = Literal["validating", "analyzing", "solving", "quantizing", "verifying"]
JobState = Literal[
    "queued",
    "validating",
    "analyzing",
    "solving",
    "quantizing",
    "verifying",
    "succeeded",
    "failed",
    "canceled",
    "expired",
]
RUNNING: frozenset[JobState] = frozenset(get_args(RunningState))
"""States of a job that a worker holds."""
ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "canceled", "expired"})
"""States in which no worker will hold the job again; a job that succeeded may still expire."""

STATE_OF: Mapping[Stage, RunningState] = {
    "ingest": "validating",
    "rounding": "analyzing",
    "sensitivity": "analyzing",
    "allocation": "solving",
    "calibration": "quantizing",
    "export": "quantizing",
    "verification": "verifying",
    "report": "verifying",
}
"""What a job is said to do during each stage of the engine."""


class _Value(BaseModel):
    # A newer service may tell more than this reader knows.
    model_config = ConfigDict(frozen=True, extra="ignore")


class JobFailure(_Value):
    """Why a job failed or a request was refused.

    Attributes:
        code: Stable name of the kind of error.
        message: What is wrong.
        remedy: What to do next.
        where: The file, layer or field concerned, if one can be named.
        retryable: Whether sending the same again can help.
    """

    code: str
    message: str
    remedy: str
    where: str | None = None
    retryable: bool = False

    @classmethod
    def of(cls, error: UserError) -> JobFailure:
        """Take over what an engine error says.

        Args:
            error: An error of the engine about the input.

        Returns:
            The same as a value.
        """
        return cls(code=error.code, message=error.message, remedy=error.remedy, where=error.where)


class JobSummary(_Value):
    """The result in a few numbers; the report has the rest.

    Attributes:
        float_bytes: Bytes of the float model with its external data.
        quantized_bytes: Bytes of the quantized model.
        ratio: `quantized_bytes / float_bytes`.
        metric: Name of the headline metric.
        metric_float: The metric of the float model.
        metric_quantized: The metric of the quantized model.
        samples: How many held-back samples it was measured on.
        sqnr_db: Signal-to-noise ratio of the first output, in dB.
        latency_ms_float: Median milliseconds of one run of the float model.
        latency_ms_quantized: Median milliseconds of one run of the quantized model.
        band_met: Whether the file was shown to keep the accuracy band that was asked for; null if none was.
    """

    float_bytes: int
    quantized_bytes: int
    ratio: float
    metric: str
    metric_float: float
    metric_quantized: float
    samples: int
    sqnr_db: float
    latency_ms_float: float
    latency_ms_quantized: float
    band_met: bool | None = None

    @classmethod
    def of(cls, report: Report | SensitivityTable) -> JobSummary | None:
        """Pick the headline numbers from a report.

        Args:
            report: What the engine returned.

        Returns:
            The summary; None for an analysis, whose table says it all.
        """
        if isinstance(report, SensitivityTable):
            return None
        return cls(
            float_bytes=report.model.float_bytes,
            quantized_bytes=report.model.quantized_bytes,
            ratio=report.model.ratio,
            metric=report.metrics.name,
            metric_float=report.metrics.float_,
            metric_quantized=report.metrics.quantized,
            samples=report.metrics.samples,
            sqnr_db=report.metrics.sqnr_db,
            latency_ms_float=report.latency_ms.float_,
            latency_ms_quantized=report.latency_ms.quantized,
            band_met=None if report.band is None else report.band.met,
        )


class JobInfo(_Value):
    """A job at one moment.

    Attributes:
        id: Its name in every address.
        kind: `quantize` or `analyze`.
        state: `queued`; `validating`, `analyzing`, `solving`, `quantizing` or `verifying` while a worker holds it; then
            `succeeded`, `failed` or `canceled`; `expired` once the files of a job that succeeded were removed.
        stage: The stage at work.
        stage_progress: Share of this stage done, 0 to 1.
        progress: Share of the whole job done, 0 to 1.
        message: What it is doing, for people.
        cancel_requested: Whether a running job was asked to stop.
        attempt: How often it was started.
        tags: Words that its owner gave it, to find it by.
        model: File name of the model.
        data: File name of the samples.
        spec: What was asked, with every default written out.
        error: Why it failed.
        summary: The result in a few numbers.
        created: When it was accepted.
        started: When its present attempt started.
        finished: When it ended.
    """

    id: str
    kind: JobKind = "quantize"
    state: JobState
    stage: Stage | None
    stage_progress: float = Field(ge=0, le=1)
    progress: float = Field(ge=0, le=1)
    message: str
    cancel_requested: bool
    attempt: int
    tags: tuple[str, ...] = ()
    model: str
    data: str
    spec: JobSpec
    error: JobFailure | None
    summary: JobSummary | None
    created: datetime
    started: datetime | None
    finished: datetime | None

    @field_validator("spec", mode="before")
    @classmethod
    def _of_its_kind(cls, spec: object, info: ValidationInfo) -> object:
        if not isinstance(spec, dict):
            return spec
        return _tolerant(AnalyzeSpec if info.data.get("kind") == "analyze" else QuantizeSpec, spec)

    @property
    def running(self) -> bool:
        """Whether a worker holds it."""
        return self.state in RUNNING

    @property
    def ended(self) -> bool:
        """Whether it will never run again."""
        return self.state in ENDED


class DeviceHealth(_Value):
    """One device of the service.

    Attributes:
        name: `cpu` or `cuda:N`.
        busy: Whether it works on a job.
        job: Which one; null also where the service asks for keys, for others need not know.
    """

    name: str
    busy: bool = False
    job: str | None


class Health(_Value):
    """How the service is.

    Attributes:
        status: `ok`; `degraded` while jobs are taken but wait for something other than a free device.
        version: Version of Bitwright there.
        queued: Jobs that wait; none while the database does not answer.
        devices: What it computes on.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "status": "ok",
                "version": "0.1.0",
                "queued": 0,
                "devices": [{"name": "cpu", "busy": False, "job": None}],
            }
        }
    )

    status: str
    version: str
    queued: int | None
    devices: tuple[DeviceHealth, ...]


def _tolerant(kind: type[QuantizeSpec] | type[AnalyzeSpec], data: dict[str, Any]) -> JobSpec:
    """Read a request that may have fields this reader does not know: requests themselves forbid them."""
    data = deepcopy(data)
    while True:
        try:
            return kind.model_validate(data)
        except ValidationError as error:
            unknown = [found["loc"] for found in error.errors() if found["type"] == "extra_forbidden"]
            if not unknown:
                raise
            for *path, name in unknown:
                holder: Any = data
                for step in path:
                    holder = holder[step]
                del holder[name]
