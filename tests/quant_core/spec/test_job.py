"""The job's document, read by a client that is older than the service."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from quant_core.spec import ENDED, RUNNING, STAGES, STATE_OF, AnalyzeSpec, JobInfo, QuantizeSpec

_JOB: dict[str, Any] = {
    "id": "j", "state": "analyzing", "stage": "sensitivity", "stage_progress": 0.5, "progress": 0.4, "message": "",
    "cancel_requested": False, "attempt": 1, "model": "m", "data": "d", "error": None, "summary": None,
    "created": "2026-01-15T09:30:00Z", "started": None, "finished": None,
}  # fmt: skip


def _told(spec: QuantizeSpec | AnalyzeSpec, **changes: Any) -> dict[str, Any]:
    return {**_JOB, "spec": spec.model_dump(mode="json"), **changes}


def test_fields_that_are_not_known_yet_are_passed_over_wherever_they_stand() -> None:
    spec = QuantizeSpec.model_validate({"size": 0.2, "pin": {"fc": 8}, "seed": 3})
    told = _told(spec, kind="quantize", wished_for=1)
    told["spec"] |= {"tomorrow": {"a": 1}}
    told["spec"]["budget"]["joules"] = 5
    told["spec"]["rules"][0]["mood"] = "good"
    told["error"] = {"code": "c", "message": "m", "remedy": "r", "retryable": True, "doctor": "x"}
    job = JobInfo.model_validate(told)
    assert job.spec == spec
    assert job.error is not None
    assert job.error.retryable
    assert told["spec"]["tomorrow"] == {"a": 1}  # what was read is left as it was


def test_a_request_is_read_as_what_the_job_is() -> None:
    analysis = AnalyzeSpec(spectrum=True, seed=2)
    assert JobInfo.model_validate(_told(analysis, kind="analyze")).spec == analysis
    assert (
        JobInfo.model_validate(JobInfo.model_validate(_told(analysis, kind="analyze")).model_dump()).spec
        == analysis
    )


def test_values_that_cannot_be_are_still_refused() -> None:
    told = _told(QuantizeSpec(), kind="quantize")
    told["spec"]["weight_bits"] = [7]
    with pytest.raises(ValidationError, match="bit-width"):
        JobInfo.model_validate(told)


def test_every_stage_has_a_state_and_no_state_is_both_running_and_ended() -> None:
    assert set(STATE_OF) == set(STAGES)
    assert set(STATE_OF.values()) == RUNNING
    assert not RUNNING & ENDED
