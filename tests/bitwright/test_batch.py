"""A batch that is killed and started again sends no job twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from bitwright.connection import Connection
from bitwright.errors import InvalidRequestError
from bitwright.ledger import Ledger
from bitwright.operations.batch import run_one
from tests.bitwright.test_waiting import JOB

_COUNT = 24
_BATCH = """
import sys
from bitwright import Client
url, model, data, resume, count = sys.argv[1:]
requests = [{"model": model, "data": data, "size": 0.1 + i / 1000, "tags": ("batch",)} for i in range(int(count))]
with Client(url) as client:
    results = client.quantize_many(requests, concurrency=3, resume_file=resume)
    print(" ".join(result.job.id for result in results if result.succeeded))
"""


@pytest.mark.slow
def test_a_batch_survives_being_killed(
    server: Any, model_file: Path, sample_file: Path, tmp_path: Path
) -> None:
    resume = tmp_path / "batch.jsonl"
    command = [
        sys.executable, "-c", _BATCH, server.url, str(model_file), str(sample_file), str(resume), str(_COUNT),
    ]  # fmt: skip

    def jobs() -> dict[str, int]:
        return dict(server.http.get("/jobs", params={"tag": "batch", "limit": 200}).json())

    for stop in (2, 7, 13):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            server.until(lambda stop=stop: jobs()["total"] >= stop, f"{stop} jobs")
            process.send_signal(signal.SIGKILL)
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    found = jobs()
    assert found["total"] == _COUNT
    assert sorted(ended.stdout.split()) == sorted(job["id"] for job in found["jobs"])
    assert len({job["spec"]["budget"]["size"] for job in found["jobs"]}) == _COUNT
    before = found["total"]
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    assert (again.stdout, jobs()["total"]) == (ended.stdout, before)


def test_a_ledger_forgets_half_a_line_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with Ledger(path) as ledger:
        one, same = ledger.entry("a"), ledger.entry("a")
        assert (one.name, same.name, one.job_id) == ("a#0", "a#1", None)
        assert one.key != same.key
        ledger.accepted(one, "j")
        with pytest.raises(InvalidRequestError, match="Another process"):
            Ledger(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"request": "a#0", "jo')
    with Ledger(path) as ledger:
        assert ledger.entry("a") == type(one)("a#0", one.key, "j")
        assert ledger.entry("a") == same
        ledger.accepted(same, "k")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("job") for line in lines] == [None, None, "j", "k"]


def test_a_job_that_failed_for_a_passing_reason_is_sent_anew_the_next_time(
    model_file: Path, sample_file: Path, tmp_path: Path
) -> None:
    lasting: dict[str, bool | None] = {"j0": True, "j1": False, "j2": None}  # None: it succeeded
    keys: list[str] = []

    def told(job: str) -> httpx.Response:
        error = {"code": "c", "message": "m", "remedy": "r", "retryable": not lasting[job]}
        if lasting[job] is None:
            return httpx.Response(200, json={**JOB, "id": job, "state": "succeeded"})
        return httpx.Response(200, json={**JOB, "id": job, "state": "failed", "error": error})

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            keys.append(request.headers["Idempotency-Key"])
            return told(f"j{len(keys) - 1}")
        return told(request.url.path.rpartition("/")[2])

    def batch() -> list[str]:
        seen: list[str] = []
        transport = httpx.MockTransport(answer)
        with (
            Ledger(tmp_path / "l") as ledger,
            httpx.Client(base_url="http://s", transport=transport) as client,
        ):
            for size in (0.2, 0.3):
                request = {"model": model_file, "data": sample_file, "size": size}
                Connection(client, retries=0).run(run_one(request, ledger, lambda info: seen.append(info.id)))
        return list(dict.fromkeys(seen))

    assert batch() == ["j0", "j1"]
    assert batch() == ["j0", "j2"]
    assert batch() == ["j0", "j2"]
    assert len(set(keys)) == len(keys) == 3


@pytest.mark.parametrize(
    "notes", ["my notes\n", "my notes", '{"requests": [', '\n{"other": "', '{"request": 1}\n']
)
def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path, notes: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(notes)
    with pytest.raises(InvalidRequestError, match="no resume file"):
        Ledger(path)
    assert path.read_text() == notes


def test_a_batch_waits_for_a_service_that_is_away_and_for_room_among_its_jobs(
    model_file: Path, sample_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, pauses, keys = [0.0], [], set()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr("bitwright.connection.time.sleep", sleep)
    monkeypatch.setattr("bitwright.operations.batch.time.monotonic", lambda: clock[0])
    full = httpx.Response(429, headers={"Retry-After": "30"})
    away: list[httpx.Response | None] = [None, httpx.Response(503), full, full, full, full, None]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            keys.add(request.headers["Idempotency-Key"])
        if away:
            first = away.pop(0)
            if first is None:
                raise httpx.ConnectError("refused")
            return first
        return httpx.Response(200, json={**JOB, "state": "succeeded"})

    def batch() -> str | None:
        request = {"model": model_file, "data": sample_file, "size": 0.2}
        transport = httpx.MockTransport(answer)
        with (
            Ledger(tmp_path / "l") as ledger,
            httpx.Client(base_url="http://s", transport=transport) as client,
        ):
            failed = Connection(client, retries=0).run(run_one(request, ledger, lambda _: None))
        return None if failed is None else type(failed).__name__

    assert batch() is None
    assert (len(keys), sum(pause >= 30 for pause in pauses)) == (1, 4)
    away[:] = [None, httpx.Response(504)]  # as the job is looked for that was sent before
    assert batch() is None
    away[:] = [None] * 1000
    assert batch() == "ServiceUnreachableError"
    away[:] = [httpx.Response(429, headers={"Retry-After": "86400"})]
    assert batch() == "RateLimitedError"
