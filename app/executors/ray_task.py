"""A task as JSON can hold it, for the process between a service and a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.executors.protocol import Task
from app.job import kind_of
from quant_core.spec import AnalyzeSpec, JobKind, QuantizeSpec

_SPECS: dict[JobKind, type[QuantizeSpec] | type[AnalyzeSpec]] = {
    "quantize": QuantizeSpec,
    "analyze": AnalyzeSpec,
}


def encode(task: Task) -> dict[str, Any]:
    """Write a task as JSON can hold it.

    Args:
        task: The task.

    Returns:
        What `decode` reads.
    """
    return {
        "job_id": task.job_id,
        "attempt": task.attempt,
        "model": str(task.model),
        "data": str(task.data),
        "kind": kind_of(task.spec),
        "spec": task.spec.model_dump(mode="json"),
        "scratch": str(task.scratch),
        "earlier": None if task.earlier is None else str(task.earlier),
        "memory_share": task.memory_share,
    }


def decode(written: Mapping[str, Any]) -> Task:
    """Read a task.

    Args:
        written: What `encode` made.

    Returns:
        The task.
    """
    return Task(
        job_id=written["job_id"],
        attempt=written["attempt"],
        model=Path(written["model"]),
        data=Path(written["data"]),
        spec=_SPECS[written["kind"]].model_validate(written["spec"]),
        scratch=Path(written["scratch"]),
        earlier=None if written["earlier"] is None else Path(written["earlier"]),
        memory_share=written["memory_share"],
    )
