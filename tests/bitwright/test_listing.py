"""Jobs are listed in as many pages as it takes, each job once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from bitwright.connection import Connection
from bitwright.operations import jobs
from bitwright.results import JobInfo
from quant_core.spec import QuantizeSpec

_NEWEST = 1000


class _Service:
    """Knows jobs by number, newest first, and is sent another one after each answer."""

    def __init__(self, count: int, busy: bool) -> None:
        self.count, self.busy = count, busy
        self.asked: list[tuple[int, int]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        limit, offset = (int(request.url.params[name]) for name in ("limit", "offset"))
        self.asked.append((limit, offset))
        if not 1 <= limit <= 200:
            return httpx.Response(
                422, json={"code": "request", "message": "too large", "where": "query.limit"}
            )
        numbers = range(_NEWEST, _NEWEST - self.count, -1)
        if self.busy:
            numbers = range(_NEWEST + len(self.asked), _NEWEST - self.count, -1)
        return httpx.Response(
            200, json={"jobs": [_job(n) for n in numbers[offset:][:limit]], "total": len(numbers)}
        )

    def list(self, limit: int, offset: int = 0) -> list[str]:
        with httpx.Client(base_url="http://s", transport=httpx.MockTransport(self.answer)) as client:
            found = Connection(client, retries=0).run(jobs.page((), (), "", limit, offset))
        return [job.id for job in found]


def _job(number: int) -> dict[str, Any]:
    job = JobInfo(
        id=str(number),
        state="queued",
        stage=None,
        stage_progress=0,
        progress=0,
        message="",
        cancel_requested=False,
        attempt=0,
        model="m.onnx",
        data="d.npz",
        spec=QuantizeSpec(),
        error=None,
        summary=None,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        started=None,
        finished=None,
    )
    return job.model_dump(mode="json")


@pytest.mark.parametrize(
    ("limit", "offset", "count", "asked"),
    [
        (50, 0, 999, [(50, 0)]),
        (500, 3, 999, [(200, 3), (200, 203), (100, 403)]),
        (500, 0, 300, [(200, 0), (200, 200)]),
        (400, 0, 400, [(200, 0), (200, 200)]),
        (10, 0, 0, [(10, 0)]),
    ],
)
def test_as_many_jobs_as_are_wanted(
    limit: int, offset: int, count: int, asked: list[tuple[int, int]]
) -> None:
    service = _Service(count, busy=False)
    found = service.list(limit, offset)
    assert found == [str(_NEWEST - offset - n) for n in range(min(limit, count - offset))]
    assert service.asked == asked


def test_a_job_that_moved_to_the_next_page_is_listed_once() -> None:
    found = _Service(900, busy=True).list(500)
    assert len(found) == len(set(found)) == 500
    assert found == [str(_NEWEST + 1 - n) for n in range(500)]
