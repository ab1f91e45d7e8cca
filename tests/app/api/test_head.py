"""Methods that routes have no line of their own for, and bodies that they cannot read."""

from __future__ import annotations

from typing import Any

import httpx
import pytest


def _same(one: httpx.Response, other: httpx.Response) -> bool:
    passing = {"x-request-id", "date", "connection"}
    return {name: value for name, value in one.headers.items() if name not in passing} == {
        name: value for name, value in other.headers.items() if name not in passing
    }


def test_head_tells_what_get_would(server: Any) -> None:
    job = server.submit()
    server.wait_for(job, "succeeded")
    for path in ("/healthz", "/readyz", f"/jobs/{job}", f"/jobs/{job}/model", f"/jobs/{job}/report", "/"):
        before, head, after = (server.http.request(method, path) for method in ("GET", "HEAD", "GET"))
        assert head.content == b""
        assert any(  # the device of a job that has ended may be given back in between
            head.status_code == whole.status_code and _same(head, whole) for whole in (before, after)
        ), path
    assert int(server.http.head(f"/jobs/{job}/model").headers["Content-Length"]) > 0
    assert server.http.head("/jobs/none").status_code == 404


def test_head_follows_no_job(server: Any) -> None:
    job = server.submit(seed=1)
    answer = server.http.head(f"/jobs/{job}/events")  # the job goes on for an hour
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    server.http.delete(f"/jobs/{job}")
    server.wait_for(job, "canceled")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("HEAD", "/quantize", "POST"),
        ("OPTIONS", "/jobs", "GET, HEAD"),
        ("PATCH", "/jobs/none", "DELETE, GET, HEAD"),
        ("POST", "/uploads/none", "DELETE, GET, HEAD, PUT"),
    ],
)
def test_what_an_address_takes_is_told(server: Any, method: str, path: str, allowed: str) -> None:
    answer = server.http.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert method == "HEAD" or f"takes {allowed}." in answer.json()["remedy"]


def test_compressed_bodies_are_refused_and_not_kept(server: Any) -> None:
    answer = server.http.put("/uploads/packed", content=b"x", headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (415, "encoding")
    assert server.http.get("/uploads/packed").status_code == 404
    assert server.http.put(
        "/uploads/plain", content=b"x", headers={"Content-Encoding": "identity"}
    ).is_success


@pytest.mark.parametrize(
    ("content", "kind", "status", "where", "words"),
    [
        (b'{"size": 0.2}', "application/x-www-form-urlencoded", 415, "Content-Type", "application/json"),
        (b'{"size": ', "application/json", 422, "body.9", "no JSON"),
        (b'{"sise": 0.2}', "application/json", 422, "body.sise", "no field 'sise'"),
        (b"\xff", "application/json", 400, "body", "UTF-8"),
        (b"[]", "application/json", 422, "body", "[] is not an object"),
        (b'{"size": 0.1, "size": 0.3}', "application/json", 422, "body", "The field 'size' is there twice"),
        (b'{"pin": {"fc": 8, "fc": 4}}', "application/json", 422, "body", "The field 'fc' is there twice"),
        (b"size=0.2", "application/x-www-form-urlencoded", 415, "Content-Type", "application/json"),
        (b"[" * 10**5, "text/plain", 415, "Content-Type", "application/json"),
        (b" " * (4 * 2**20 + 1), "application/json", 413, "body", "larger than the 4194304 bytes"),
    ],
)
def test_what_is_wrong_with_a_json_body_is_told(
    server: Any, content: bytes, kind: str, status: int, where: str, words: str
) -> None:
    job = server.submit()
    answer = server.http.post(f"/jobs/{job}/plans", content=content, headers={"Content-Type": kind})
    told = answer.json()
    assert (answer.status_code, told["where"]) == (status, where)
    assert words in told["message"]


@pytest.mark.parametrize(
    ("method", "part", "query"),
    [("DELETE", "", "cancel_only"), ("GET", "/model", "redirect"), ("GET", "/files/{name}", "redirect")],
)
def test_a_parameter_that_cannot_be_read_is_answered_as_the_document_says(
    server: Any, method: str, part: str, query: str
) -> None:
    job = server.submit()
    address = f"/jobs/{job}{part}".replace("{name}", "costs.json")
    answer = server.http.request(method, address, params={query: "perhaps"})
    assert (answer.status_code, answer.json()["where"]) == (422, f"query.{query}")
    described = server.http.get("/openapi.json").json()["paths"][f"/jobs/{{job_id}}{part}"]
    assert "422" in described[method.lower()]["responses"]
