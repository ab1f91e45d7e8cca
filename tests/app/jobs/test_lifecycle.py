"""A job's life over HTTP: progress, events, cancel, delete, results."""

from __future__ import annotations

import json
from typing import Any

import pytest


def _events(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def test_events_tell_the_whole_story_in_order(server: Any) -> None:
    job = server.submit()
    answer = server.http.get(f"/jobs/{job}/events")  # ends with the job
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    events = _events(answer.text)
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    states = [data["state"] for _, kind, data in events if kind == "state"]
    assert states == [
        "queued", "validating", "analyzing", "solving", "quantizing", "verifying", "succeeded",
    ]  # fmt: skip
    steps = [data for _, kind, data in events if kind == "progress"]
    assert list(dict.fromkeys(step["stage"] for step in steps)) == [
        "ingest", "rounding", "sensitivity", "allocation", "calibration", "export", "verification", "report",
    ]  # fmt: skip
    progress = [step["progress"] for step in steps]
    assert progress == sorted(progress)
    assert progress[-1] == pytest.approx(1.0)

    again = _events(server.http.get(f"/jobs/{job}/events").text)
    assert again == events
    rest = _events(server.http.get(f"/jobs/{job}/events", headers={"Last-Event-ID": "3"}).text)
    assert rest == events[3:]
    last = server.http.get(f"/jobs/{job}/events", headers={"Last-Event-ID": str(len(events))})
    assert last.status_code == 204


def test_results_wait_for_the_end_and_come_as_asked(server: Any) -> None:
    job = server.submit(seed=1)
    server.worker(job)
    for path in ("model", "report", "files/pareto.json"):
        answer = server.http.get(f"/jobs/{job}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (409, "not_finished")
    server.http.delete(f"/jobs/{job}")
    server.wait_for(job, "canceled")
    assert server.http.get(f"/jobs/{job}/model").json()["code"] == "no_result"

    done = server.submit()
    server.wait_for(done, "succeeded")
    report = server.http.get(f"/jobs/{done}/report")
    assert report.headers["Content-Type"] == "application/json"
    assert report.json()["metrics"]["float"] == 0.9
    page = server.http.get(f"/jobs/{done}/report", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.text.startswith("<!doctype html>")
    assert server.http.get(f"/jobs/{done}/report", headers={"Accept": "image/png"}).status_code == 406
    for name in ("sensitivity.json", "pareto.json", "costs.json"):
        assert server.http.get(f"/jobs/{done}/files/{name}").json()["version"] == 1
    for name in ("model.onnx", "..%2Finput%2Fdata%2Fd.npz"):
        assert server.http.get(f"/jobs/{done}/files/{name}").status_code in {404, 422}


def test_failures_carry_code_and_remedy(server: Any) -> None:
    job = server.wait_for(server.submit(seed=5), "failed")
    assert job["error"] == {
        "code": "infeasible_budget",
        "message": "too small",
        "remedy": "Ask for at least 1234 bytes.",
        "where": "budget.size",
        "retryable": False,
    }
    fault = server.wait_for(server.submit(seed=4), "failed")["error"]
    assert fault["code"] == "internal"
    assert "ZeroDivisionError" in fault["message"]
    server.until_gone(job["id"])


@pytest.mark.slow
def test_a_job_that_runs_out_of_memory_is_tried_with_smaller_batches(server: Any) -> None:
    saved = server.wait_for(server.submit(seed=12), "succeeded", "failed")
    assert (saved["state"], saved["attempt"]) == ("succeeded", 3)
    text = server.http.get(f"/jobs/{saved['id']}/events").text
    told = [json.loads(line[5:])["message"] for line in text.splitlines() if line.startswith("data:")]
    assert [one for one in told if one.startswith("batches of")] == [
        f"batches of {n}" for n in (1, 0.25, 0.0625)
    ]
    again = [one for one in told if "starts again with" in one]
    assert ["0.25 of the usual size" in again[0], "0.0625 of the usual size" in again[1]] == [True, True]
    lost = server.wait_for(server.submit(seed=6), "failed")
    assert (lost["error"]["code"], lost["attempt"]) == ("out_of_memory", 3)
    server.until_gone(lost["id"])


def test_jobs_are_listed_newest_first_by_page_and_state(server: Any) -> None:
    mine = [server.submit() for _ in range(3)]
    for job in mine:
        server.wait_for(job, "succeeded")
    failed = server.submit(seed=5)
    server.wait_for(failed, "failed")
    page = server.http.get("/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in page["jobs"]] == [failed, mine[2]]
    assert page["total"] >= 4
    rest = server.http.get("/jobs", params={"limit": 2, "offset": 2}).json()
    assert [job["id"] for job in rest["jobs"]] == [mine[1], mine[0]]
    by_state = server.http.get("/jobs", params={"state": "failed"}).json()
    assert by_state["jobs"][0]["id"] == failed
    assert {job["state"] for job in by_state["jobs"]} == {"failed"}
    for bad in ({"limit": 0}, {"limit": 1000}, {"offset": -1}, {"state": "odd"}):
        answer = server.http.get("/jobs", params=bad)
        assert answer.status_code == 422
        assert answer.json()["where"].startswith(f"query.{next(iter(bad))}")


def test_an_ended_job_is_deleted_with_its_files(server: Any) -> None:
    job = server.submit()
    server.wait_for(job, "succeeded")
    refused = server.http.delete(f"/jobs/{job}", params={"cancel_only": True})
    assert (refused.status_code, refused.json()["code"]) == (409, "already_ended")
    assert any(job in name for name in server.files())
    assert server.http.delete(f"/jobs/{job}").status_code == 204
    assert not any(name.startswith(f"store/folders/{job}") for name in server.files())
    server.until_gone(job)  # what the attempt worked on goes by itself
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/model"), ("GET", "/events")):
        answer = server.http.request(method, f"/jobs/{job}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_job")


def test_unknown_addresses_and_methods_are_problems_too(server: Any) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("PUT", "/jobs", 405)):
        answer = server.http.request(method, path, headers={"X-Request-ID": "mine-1"})
        assert answer.status_code == status
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"] == "mine-1"
