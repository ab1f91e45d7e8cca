"""What the service answers, as documented by OpenAPI."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.job import Job
from quant_core.spec import JobInfo

JOB_ID = "0b8f6f1e6d1c4f0f9b7a2a54d3c1e7aa"
"""The job of every example."""

_EXAMPLE: dict[str, JsonValue] = {
    "id": JOB_ID,
    "kind": "quantize",
    "state": "analyzing",
    "stage": "sensitivity",
    "stage_progress": 0.4,
    "progress": 0.3,
    "message": "layer 9 of 22",
    "cancel_requested": False,
    "attempt": 1,
    "owner": "ci",
    "tags": ["nightly"],
    "model": "resnet20_cifar10.onnx",
    "data": "cifar10_calibration.npz",
    "spec": {"budget": {"size": 0.18}, "weight_bits": [2, 3, 4, 5, 6, 8], "seed": 0},
    "error": None,
    "summary": None,
    "created": "2026-01-15T09:30:00Z",
    "started": "2026-01-15T09:30:01Z",
    "finished": None,
    "links": {
        "self": f"/jobs/{JOB_ID}",
        "events": f"/jobs/{JOB_ID}/events",
        "model": None,
        "report": None,
        "sensitivity": None,
        "pareto": None,
    },
}


class Links(BaseModel):
    """Where to go from a job; null where there is nothing yet.

    Attributes:
        self_: The job.
        events: Its events as a stream.
        model: The quantized model.
        report: The report, JSON or HTML by Accept.
        sensitivity: The sensitivity table.
        pareto: The Pareto front.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    self_: str = Field(alias="self")
    events: str
    model: str | None
    report: str | None
    sensitivity: str | None
    pareto: str | None


class JobView(JobInfo):
    """A job as clients see it.

    Attributes:
        owner: Name of the key it was sent with; `local` where the service asks for none.
        links: Where to go from here.
    """

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    owner: str
    links: Links

    @classmethod
    def of(cls, job: Job, owner: str) -> JobView:
        """Show a job.

        Args:
            job: The job.
            owner: Whose it is, for people.

        Returns:
            What clients see of it.
        """
        here = f"/jobs/{job.id}"
        done = job.state == "succeeded"
        made = done and job.kind == "quantize"
        links = Links(
            self=here,
            events=f"{here}/events",
            model=f"{here}/model" if made else None,
            report=f"{here}/report" if made else None,
            sensitivity=f"{here}/files/sensitivity.json" if done else None,
            pareto=f"{here}/files/pareto.json" if made else None,
        )
        return cls(**{name: getattr(job, name) for name in JobInfo.model_fields}, owner=owner, links=links)


class JobPage(BaseModel):
    """A page of jobs, newest first.

    Attributes:
        jobs: The jobs.
        total: How many there are in all.
        limit: How many a page holds at most.
        offset: How many newer ones were passed over.
    """

    model_config = ConfigDict(
        json_schema_extra={"example": {"jobs": [_EXAMPLE], "total": 1, "limit": 50, "offset": 0}}
    )

    jobs: list[JobView]
    total: int
    limit: int
    offset: int
