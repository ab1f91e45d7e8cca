"""Uploads: broken off and taken up again, checked, kept once, named in a form, forgotten."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.app.service import MODEL

_CONTENT = os.urandom(3 * 2**20 + 17)
_DIGEST = hashlib.sha256(_CONTENT).hexdigest()


def _contents(server: Any) -> list[str]:
    return sorted(path.name for path in (server.folder / "store" / "contents").rglob("*") if path.is_file())


def test_an_upload_goes_on_where_the_connection_broke(server: Any) -> None:
    url = f"/uploads/{_DIGEST}"
    assert server.http.head(url).status_code == 404
    half = len(_CONTENT) // 2
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        wire.sendall(
            f"PUT {url} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(_CONTENT)}\r\n\r\n".encode()
        )
        wire.sendall(_CONTENT[:half])
        # GET only looks; HEAD ends the transfer wherever it is, and so does the break: what is on its way may be lost.
        server.until(lambda: server.http.get(url).json().get("bytes", 0) >= 2**20, "some of it to be written")
    head = server.http.head(url).headers
    offset = int(head["Upload-Offset"])
    assert 2**20 <= offset <= half
    assert head["Upload-Complete"] == "?0"
    wrong = server.http.put(url, content=_CONTENT[5:], headers={"Upload-Offset": "5"})
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["Upload-Offset"]) == (
        409,
        "upload_offset",
        str(offset),
    )
    done = server.http.put(url, content=_CONTENT[offset:], headers={"Upload-Offset": str(offset)})
    assert (done.status_code, done.headers["Upload-Complete"]) == (201, "?1")
    view = server.http.get(url).json()
    assert (view["bytes"], view["complete"], view["sha256"]) == (len(_CONTENT), True, _DIGEST)
    assert (server.folder / "store" / "contents" / _DIGEST[:2] / _DIGEST).read_bytes() == _CONTENT
    assert server.http.put(url, content=_CONTENT).json() == view  # again: it is here
    assert server.http.delete(url).status_code == 204
    assert server.http.delete(url).status_code == 404


def test_a_name_that_is_sent_anew_stands_for_nothing_until_all_is_here(server: Any) -> None:
    def send() -> Any:
        form = {"model": (None, "again.onnx"), "data": ("s.npz", b"PK\x03\x04")}
        return server.http.post("/quantize", files=form)

    url = "/uploads/again.onnx"
    assert server.http.put(url, content=MODEL).status_code == 201
    assert send().status_code == 202
    newer = MODEL + b", the second"
    half = server.http.put(url, content=newer[:9], headers={"Upload-Length": str(len(newer))})
    assert half.status_code == 202
    refused = send()  # what was there before is not what the client means
    assert (refused.status_code, refused.json()["code"]) == (404, "no_such_upload")
    assert "again.onnx" not in [found["id"] for found in server.http.get("/uploads").json()["uploads"]]
    assert server.http.put(url, content=newer[9:], headers={"Upload-Offset": "9"}).status_code == 201
    assert send().status_code == 202


def test_curl_sends_a_file_and_goes_on_from_its_middle(server: Any, tmp_path: Path) -> None:
    file = tmp_path / "big.onnx"
    file.write_bytes(_CONTENT)
    start = server.http.put(
        "/uploads/big.onnx", content=_CONTENT[:1000], headers={"Upload-Length": str(len(_CONTENT))}
    )
    assert (start.status_code, start.headers["Upload-Offset"]) == (202, "1000")
    curl = ["curl", "-sS", "--noproxy", "*", "-T", str(file), "-C", "1000", f"{server.url}/uploads/big.onnx"]
    said = subprocess.run(curl, capture_output=True, text=True, check=True).stdout
    assert _DIGEST in said, said


def test_parts_of_unknown_length_say_which_is_the_last(server: Any) -> None:
    first = server.http.put("/uploads/parts", content=b"abc", headers={"Upload-Complete": "?0"})
    assert (first.status_code, first.json()["complete"]) == (202, False)
    last = server.http.put("/uploads/parts", content=b"def", headers={"Upload-Offset": "3"})
    assert (last.status_code, last.json()["sha256"]) == (201, hashlib.sha256(b"abcdef").hexdigest())
    more = server.http.put("/uploads/parts", content=b"ghi", headers={"Upload-Offset": "3"})
    assert (more.status_code, more.json()["code"]) == (409, "upload_offset")
    assert "is complete with 6 bytes, and these begin at 3" in more.json()["message"]
    assert (more.headers["Upload-Offset"], more.headers["Upload-Complete"]) == ("6", "?1")
    anew = server.http.put("/uploads/parts", content=b"other")
    assert anew.json()["sha256"] == hashlib.sha256(b"other").hexdigest()


def test_content_that_is_not_what_was_promised_is_refused(server: Any) -> None:
    other = server.http.put(f"/uploads/{'0' * 64}", content=b"x")
    assert (other.status_code, other.json()["code"]) == (400, "digest")
    assert server.http.head(f"/uploads/{'0' * 64}").status_code == 404
    told = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    good = server.http.put("/uploads/told", content=b"x", headers={"Repr-Digest": f"sha-256=:{told}:"})
    assert good.status_code == 201
    bad = server.http.put("/uploads/told", content=b"y", headers={"Repr-Digest": f"sha-256=:{told}:"})
    assert (bad.status_code, bad.json()["code"]) == (400, "digest")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Upload-Offset", "-1"), ("Upload-Offset", "x"), ("Upload-Length", "1e3"), ("Upload-Complete", "yes"),
        ("Content-Range", "bytes 0-1"), ("Repr-Digest", "sha-256=:AAAA:"), ("Repr-Digest", "md5=:AAAA:"),
    ],
)  # fmt: skip
def test_headers_that_cannot_be_read_are_named(server: Any, name: str, value: str) -> None:
    answer = server.http.put("/uploads/h", content=b"x", headers={name: value})
    assert (answer.status_code, answer.json()["where"]) == (400, name)


@pytest.mark.parametrize("name", ["..", ".x", "a%2Fb", "a%20b", "x" * 129, "%2e%2e%2fx"])
def test_names_that_are_no_plain_words_are_refused(server: Any, name: str) -> None:
    assert server.http.put(f"/uploads/{name}", content=b"x").status_code in {404, 405, 422}


def test_a_name_that_is_none_is_told_with_the_form_of_one(server: Any) -> None:
    told = server.http.put("/uploads/a%20b", content=b"x").json()
    assert told["where"] == "path.upload_id"
    assert told["message"].startswith("'a b' is not of the form ^[A-Za-z0-9]")


def test_size_is_limited_before_and_while_it_streams(strict_server: Any) -> None:
    limit = 3 * 2**20
    said = strict_server.http.put("/uploads/a", content=bytes(limit + 1))
    assert (said.status_code, said.json()["code"]) == (413, "too_large")
    streamed = strict_server.http.put("/uploads/b", content=(bytes(2**20) for _ in range(4)))
    assert (streamed.status_code, streamed.json()["code"]) == (413, "too_large")
    told = strict_server.http.put("/uploads/c", content=b"abcd", headers={"Upload-Length": "3"})
    assert (told.status_code, told.json()["where"]) == (413, "Upload-Length")
    assert "the 3 bytes came that Upload-Length tells" in told.json()["message"]
    assert strict_server.files() == set()
    assert strict_server.http.put("/uploads/d", content=bytes(limit)).status_code == 201


def test_an_owner_keeps_within_a_quota(make_server: Any) -> None:
    server = make_server(BITWRIGHT_UPLOAD_QUOTA="1000")
    assert server.http.put("/uploads/a", content=bytes(600)).status_code == 201
    over = server.http.put("/uploads/b", content=bytes(500))
    assert (over.status_code, over.json()["code"]) == (413, "quota")
    while_it_comes = server.http.put("/uploads/c", content=(bytes(100) for _ in range(5)))
    assert (while_it_comes.status_code, while_it_comes.json()["code"]) == (413, "quota")
    assert server.http.put("/uploads/a", content=bytes(1000)).status_code == 201  # in place of what it was
    server.http.delete("/uploads/a")
    assert server.http.put("/uploads/b", content=bytes(500)).status_code == 201
    server.stop()


def test_a_client_takes_over_from_its_own_dead_connection(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        wire.sendall(
            b"PUT /uploads/held HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n" + bytes(40)
        )
        server.until(lambda: (server.folder / "uploads" / "local" / "held").exists(), "the upload to begin")
        head = server.http.head("/uploads/held")  # ends what is still open, so that nothing moves under us
        offset = int(head.headers["Upload-Offset"])
        rest = server.http.put(
            "/uploads/held", content=bytes(100 - offset), headers={"Upload-Offset": str(offset)}
        )
        assert (rest.status_code, rest.json()["bytes"]) == (201, 100)


def test_a_job_is_made_of_uploads_and_the_same_model_is_kept_once(server: Any, sample_file: Path) -> None:
    content = MODEL + os.urandom(40)
    digest = hashlib.sha256(content).hexdigest()
    server.http.put(f"/uploads/{digest}", content=content)
    server.http.put("/uploads/samples", content=sample_file.read_bytes())
    form = {"model": f"net.onnx={digest}", "data": "d.npz=samples", "spec": '{"size": 0.2}'}
    named = server.http.post("/quantize", files={name: (None, text) for name, text in form.items()})
    assert named.status_code == 202, named.text
    assert (named.json()["model"], named.json()["data"]) == ("net.onnx", "d.npz")
    sent = server.http.post("/quantize", files={"model": ("x.onnx", content), "data": (None, "samples")})
    assert sent.status_code == 202, sent.text
    for answer in (named, sent):
        job = server.wait_for(answer.json()["id"], "succeeded", "failed")
        assert job["state"] == "succeeded", job
        assert server.http.get(f"/jobs/{job['id']}/model").content == content[::-1]
    assert _contents(server).count(digest) == 1


def test_external_data_may_be_an_upload(server: Any, sample_file: Path) -> None:
    server.http.put("/uploads/weights", content=b"w")
    form = [
        ("model", ("m.onnx", b"external deep/weights.bin")),
        ("data", ("d.npz", sample_file.read_bytes())),
        ("files", (None, "deep/weights.bin=weights")),
    ]
    assert server.http.post("/quantize", files=form).status_code == 202
    form[2] = ("files", (None, "../weights.bin=weights"))
    refused = server.http.post("/quantize", files=form)
    assert (refused.status_code, refused.json()["code"]) == (400, "file_name")


@pytest.mark.parametrize("name", ["none", "../../etc/passwd", "a=", ""])
def test_an_upload_that_is_not_there_is_named(server: Any, sample_file: Path, name: str) -> None:
    form = {"model": (None, name), "data": ("d.npz", sample_file.read_bytes())}
    answer = server.http.post("/quantize", files=form)
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_upload")


def test_complete_uploads_are_listed_the_latest_first(own_server: Any) -> None:
    service = own_server
    for name in ("first.onnx", "second.npz"):
        assert service.http.put(f"/uploads/{name}", content=MODEL).status_code == 201
    half = {"Upload-Length": "100"}
    assert service.http.put("/uploads/half.onnx", content=MODEL, headers=half).status_code == 202
    found = service.http.get("/uploads").json()
    assert [upload["id"] for upload in found["uploads"]] == ["second.npz", "first.onnx"]
    assert found["uploads"][0] == service.http.get("/uploads/second.npz").json()
    assert found["total"] == 2
    assert len(service.http.get("/uploads", params={"limit": 1}).json()["uploads"]) == 1
    assert service.http.delete("/uploads/second.npz").status_code == 204
    assert service.http.get("/uploads").json()["total"] == 1
