"""Results whole, in part, or not at all, by what the client has."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest


@pytest.fixture(scope="session")
def model(server: Any) -> tuple[str, bytes]:
    """The address of a job's model, and its content."""
    job = server.submit()
    assert server.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    return f"/jobs/{job}/model", server.http.get(f"/jobs/{job}/model").content


def test_a_file_says_what_it_is_and_is_not_sent_twice(server: Any, model: tuple[str, bytes]) -> None:
    address, content = model
    answer = server.http.get(address)
    digest = hashlib.sha256(content)
    assert answer.headers["ETag"] == f'"{digest.hexdigest()}"'
    assert answer.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    tag = answer.headers["ETag"]
    for have in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = server.http.get(address, headers={"If-None-Match": have})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert server.http.get(address, headers={"If-None-Match": '"other"'}).content == content


def test_a_stretch_is_sent_where_the_content_is_the_same(server: Any, model: tuple[str, bytes]) -> None:
    address, content = model
    tag = server.http.get(address).headers["ETag"]
    for have, status, body in (
        ({"Range": "bytes=5-"}, 206, content[5:]),
        ({"Range": "bytes=5-8", "If-Range": tag}, 206, content[5:9]),
        ({"Range": "bytes=-3"}, 206, content[-3:]),
        ({"Range": "bytes=5-", "If-Range": '"other"'}, 200, content),
        ({"Range": "bytes=5000-", "If-Range": '"other"'}, 200, content),
    ):
        answer = server.http.get(address, headers=have)
        assert (answer.status_code, answer.content) == (status, body), have
    assert server.http.get(address, headers={"Range": "bytes=5-8"}).headers["Content-Range"] == (
        f"bytes 5-8/{len(content)}"
    )


@pytest.mark.parametrize(("asked", "status"), [("bytes=5000-", 416), ("bytes=x", 400), ("lines=1-2", 400)])
def test_a_range_that_is_none_is_a_problem(
    server: Any, model: tuple[str, bytes], asked: str, status: int
) -> None:
    answer = server.http.get(model[0], headers={"Range": asked})
    assert (answer.status_code, answer.json()["code"], answer.json()["where"]) == (status, "range", "Range")
    assert ("Content-Range" in answer.headers) == (status == 416)


def test_reports_and_tables_are_sent_in_the_same_way(server: Any, model: tuple[str, bytes]) -> None:
    job = model[0].removesuffix("/model")
    tags = set()
    for address, accept in (
        ("report", "application/json"), ("report", "text/html"), ("files/costs.json", "*/*"),
    ):  # fmt: skip
        first = server.http.get(f"{job}/{address}", headers={"Accept": accept})
        tags.add(first.headers["ETag"])
        rest = server.http.get(
            f"{job}/{address}",
            headers={"Accept": accept, "Range": "bytes=9-", "If-Range": first.headers["ETag"]},
        )
        assert (rest.status_code, rest.content) == (206, first.content[9:])
    assert len(tags) == 3
