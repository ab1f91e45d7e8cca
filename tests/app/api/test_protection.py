"""Who may do what: keys, scopes, owners, limits, other sites' pages; and what every answer carries."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from app.admin import create_key, revoke_key
from app.settings import Settings
from quant_core.spec import JobState
from tests.app.service import MODEL

_DATA = b"PK\x05\x06" + bytes(18)


@pytest.fixture(scope="module")
def guarded(make_server: Callable[..., Any]) -> Iterator[Any]:
    running = make_server(
        BITWRIGHT_KEYS="on",
        BITWRIGHT_LOG_FORMAT="json",
        SOME_SECRET="hunter2",
        BITWRIGHT_WEBHOOK_SECRET="hunter2" * 3,
        BITWRIGHT_WEBHOOK_HOSTS="me.example",
    )
    yield running
    running.stop()


@pytest.fixture
def key(guarded: Any) -> Iterator[Callable[..., httpx.Client]]:
    """Makes clients with keys of their own."""
    with ExitStack() as stack:

        def make(*scopes: str, rate: int = 600, jobs: int = 9) -> httpx.Client:
            settings = Settings(data_dir=guarded.folder)
            _, token = create_key(settings, "me", scopes or ("read", "write"), rate, jobs)
            headers = {"Authorization": f"Bearer {token}"}
            client = httpx.Client(base_url=guarded.url, headers=headers, timeout=900, trust_env=False)
            return stack.enter_context(client)

        yield make


def _send(client: httpx.Client, model: bytes = MODEL, **more: Any) -> httpx.Response:
    return client.post("/quantize", files={"model": ("m.onnx", model), "data": ("d.npz", _DATA)}, **more)


def test_without_a_key_only_what_tells_nothing_is_open(guarded: Any) -> None:
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/"):
        assert guarded.http.get(path).is_success
    for method, path in (
        ("GET", "/jobs"),
        ("POST", "/quantize"),
        ("PUT", "/uploads/a"),
        ("GET", "/metrics"),
        ("GET", "/x"),
    ):
        answer = guarded.http.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (401, "key")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for value in ("Bearer", "Bearer bw_0_0", "Basic dTpw", "Bearer \x7f"):
        assert guarded.http.get("/jobs", headers={"Authorization": value}).status_code == 401


def test_whoever_asks_how_the_service_is_learns_of_nobodys_job(
    guarded: Any, key: Callable[..., httpx.Client], gate: Any
) -> None:
    mine = key()
    job = _send(mine, gate.model, data={"spec": '{"seed": 9}'}).json()["id"]
    guarded.until(lambda: mine.get(f"/jobs/{job}").json()["state"] == "validating", "the job to run")
    assert guarded.http.get("/healthz").json()["devices"] == [{"name": "cpu", "busy": True, "job": None}]
    gate.open()
    guarded.until(lambda: mine.get(f"/jobs/{job}").json()["state"] == "succeeded", "the job to end")


def test_a_key_does_what_its_scopes_allow(key: Callable[..., httpx.Client]) -> None:
    reader, writer, counter = (key(scope) for scope in ("read", "write", "metrics"))
    assert reader.get("/jobs").is_success
    assert _send(reader).json()["code"] == "scope"
    assert reader.get("/metrics").json()["message"] == "This key does not have the scope metrics."
    assert _send(writer).status_code == 202
    assert writer.get("/jobs").status_code == 403
    assert counter.get("/jobs").status_code == 403
    told = counter.get("/metrics").text
    assert re.search(r'^bitwright_requests_total\{method="POST",status="202"\} [1-9]', told, re.MULTILINE)
    assert re.search(r"^bitwright_received_bytes_total [1-9]", told, re.MULTILINE)
    for state in get_args(JobState):  # also of those that no job is in
        assert f'bitwright_jobs{{state="{state}"}}' in told


def test_the_log_leads_from_a_request_to_its_job_and_says_why_it_failed(
    guarded: Any, key: Callable[..., httpx.Client]
) -> None:
    mine = key()
    sent = _send(mine, data={"spec": '{"seed": 5}'}, headers={"X-Request-ID": "mine"})
    job = sent.json()["id"]
    guarded.until(lambda: mine.get(f"/jobs/{job}").json()["state"] == "failed", "the job to end")

    def told() -> list[dict[str, Any]]:
        lines = map(json.loads, guarded.folder.with_suffix(".log").read_text().splitlines())
        return [line for line in lines if line.get("job") == job]

    guarded.until(lambda: len(told()) == 3, "three lines of it")
    waits, starts, ends = told()
    assert (waits["request_id"], "key" in waits, "starts on cpu" in starts["message"]) == ("mine", True, True)
    assert ends["message"].endswith("failed (infeasible_budget: too small)")


def test_another_owners_job_is_as_good_as_none(key: Callable[..., httpx.Client]) -> None:
    mine, other = key(), key()
    job = _send(mine).json()["id"]
    assert mine.get("/jobs").json()["total"] == 1
    assert other.get("/jobs").json()["total"] == 0
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/events"),
        ("GET", "/model"),
        ("GET", "/report"),
        ("GET", "/files/costs.json"),
    ):
        answer = other.request(method, f"/jobs/{job}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_job"), path
    assert other.post(f"/jobs/{job}/plans", json={}).status_code == 404
    assert other.post("/quantize", files={"from_job": (None, job)}).status_code == 404
    assert (mine.get(f"/jobs/{job}").json()["id"], mine.get(f"/jobs/{job}").json()["owner"]) == (job, "me")
    assert mine.get("/jobs", params={"text": "M.ONNX"}).json()["total"] == 1
    assert mine.get("/jobs", params={"text": "m.onnx other"}).json()["total"] == 0
    assert other.get("/jobs", params={"text": "m.onnx"}).json()["total"] == 0
    assert mine.put("/uploads/mine.onnx", content=b"secret").status_code == 201
    assert [upload["id"] for upload in mine.get("/uploads").json()["uploads"]] == ["mine.onnx"]
    assert other.get("/uploads").json() == {"uploads": [], "total": 0}


def test_requests_and_jobs_are_limited_by_key(key: Callable[..., httpx.Client]) -> None:
    hasty = key(rate=3)
    answers = [hasty.get("/jobs") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["retryable"]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 20
    greedy = key(jobs=1)
    running = _send(greedy, data={"spec": '{"seed": 1}'})
    assert running.status_code == 202
    refused = _send(greedy, model=b"what the checks would refuse, which nobody runs for it")
    assert (refused.status_code, refused.json()["code"]) == (429, "jobs")
    greedy.delete(f"/jobs/{running.json()['id']}")


def test_a_revoked_key_is_refused(guarded: Any) -> None:
    made, token = create_key(Settings(data_dir=guarded.folder), "me", ("read",), 60, 1)
    revoke_key(Settings(data_dir=guarded.folder), made.id)
    assert guarded.http.get("/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_the_same_idempotency_key_queues_one_job(key: Callable[..., httpx.Client]) -> None:
    mine, other = key(), key()
    headers = {"Idempotency-Key": "k"}
    first = _send(mine, headers=headers, params={"tag": ["a", "b"]})
    again = _send(mine, headers=headers, params={"tag": ["a", "b"]})
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"] == mine.get("/jobs").json()["jobs"][0]["id"]
    assert mine.get("/jobs").json()["total"] == 1
    assert first.json()["tags"] == ["a", "b"]
    for changed in (
        {"data": {"spec": '{"seed": 7}'}, "params": {"tag": ["a", "b"]}},
        {"model": b"\x08other"},
    ):
        refused = _send(mine, headers=headers, **changed)
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key")
    assert _send(other, headers=headers).json()["id"] != first.json()["id"]
    for bad in (
        {"headers": {"Idempotency-Key": "x" * 256}},
        {"params": {"tag": "a,b"}},
    ):
        assert _send(mine, **bad).status_code == 422


@pytest.mark.parametrize(
    "address", ["https://a.example/", "https://me.example@a.example", "https://me.example\t/"]
)
def test_an_address_that_cannot_be_told_is_refused(key: Callable[..., httpx.Client], address: str) -> None:
    refused = _send(key(), params={"webhook": address})
    assert (refused.status_code, refused.json()["where"]) == (422, "query.webhook")


def test_processes_that_open_models_inherit_no_secrets(guarded: Any) -> None:
    seen: list[bytes] = []

    def told() -> bool:
        seen[:] = [_environment(pid) for pid in guarded.children()]
        return len(seen) >= 2 and all(seen)

    guarded.until(told, "the processes to be there")
    assert not any(b"hunter2" in found for found in seen)
    assert b"hunter2" not in guarded.folder.with_suffix(".log").read_bytes()


def _environment(pid: int) -> bytes:
    """What a process was started with; nothing where it is not that far yet, or gone."""
    with suppress(OSError):
        process = Path(f"/proc/{pid}")
        found = (process / "environ").read_bytes()
        if b"PATH=" in found and b"multiprocessing" in (process / "cmdline").read_bytes():
            return found
    return b""


def test_every_answer_forbids_what_it_does_not_need(guarded: Any) -> None:
    for path in ("/jobs", "/healthz", "/docs", "/nothing"):
        headers = guarded.http.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    page = guarded.http.get("/docs").text
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    routes = {
        f"{m.upper()} {p}" for p, ms in guarded.http.get("/openapi.json").json()["paths"].items() for m in ms
    }
    assert set(re.findall(r"<h2><code>(.*?)</code>", page)) == routes


def test_what_no_name_has_finds_nothing_and_is_no_fault_of_ours(server: Any) -> None:
    for path in ("/jobs?text=%00", "/jobs?tag=a%00b", "/jobs/%00", "/quantize?webhook=https://h.example/%00"):
        answer = server.http.post(path) if path.startswith("/quantize") else server.http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (400, "address"), path
    sent = server.http.post("/quantize", files={"from_job": (None, "a\0b")})
    assert (sent.status_code, sent.json()["code"], sent.json()["where"]) == (404, "no_such_job", "a\ufffdb")


def test_without_keys_other_sites_pages_are_turned_away(server: Any) -> None:
    assert server.http.get("/jobs", headers={"Origin": server.url}).is_success
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Host": f"evil.example:{server.port}"},
        {"Host": "[::1"},
        {"Origin": "http://["},
    ):
        answer = server.http.get("/jobs", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "origin")
    assert server.http.get("/jobs", headers={"Host": f"localhost:{server.port}"}).is_success
