"""Uploads: limits that hold while they stream, and memory that does not grow with them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEAD = b'--b\r\nContent-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\n\x08'
_TAIL = (
    b'\r\n--b\r\nContent-Disposition: form-data; name="data"; filename="d.npz"\r\n\r\nPK\x03\x04\r\n--b--\r\n'
)
_TYPE = {"Content-Type": "multipart/form-data; boundary=b"}


def _body(megabytes: int) -> Iterator[bytes]:
    yield _HEAD
    for _ in range(megabytes):
        yield bytes(2**20)
    yield _TAIL


def _peak_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def test_a_large_upload_does_not_fill_the_memory(server: Any) -> None:
    before = _peak_kilobytes(server.process.pid)
    answer = server.http.post("/quantize", content=_body(120), headers=_TYPE)
    assert answer.status_code == 202, answer.text
    assert _peak_kilobytes(server.process.pid) - before < 40_000
    server.wait_for(answer.json()["id"], "succeeded", "failed")


def test_an_upload_over_the_limit_is_refused(strict_server: Any) -> None:
    said = strict_server.http.post("/quantize", content=b"".join(_body(4)), headers=_TYPE)
    assert (said.status_code, said.json()["code"]) == (413, "too_large")
    streamed = strict_server.http.post("/quantize", content=_body(4), headers=_TYPE)
    assert (streamed.status_code, streamed.json()["code"]) == (413, "too_large")
    spec = strict_server.http.post("/quantize", files={"spec": (None, b" " * (2**20 + 1))})
    assert (spec.status_code, spec.json()["where"]) == (413, "spec")
    many = strict_server.http.post("/quantize", files=[("spec", (None, b" " * 2**19))] * 5)
    assert (many.status_code, many.json()["code"]) == (413, "too_large")
    assert "without files" in many.json()["message"]
    assert strict_server.files() == set()
    assert strict_server.http.post("/quantize", content=_body(2), headers=_TYPE).status_code == 202


def test_checks_that_take_too_long_or_too_much_memory_are_stopped(make_server: Any, tmp_path: Path) -> None:
    hasty = make_server(
        BITWRIGHT_CHECK_TIMEOUT="1", BITWRIGHT_JOB_MEMORY=str(4 * 2**30), TMPDIR=str(tmp_path)
    )
    answer = hasty.post(model=b"slow")
    assert (answer.status_code, answer.json()["code"]) == (422, "check_timeout")
    # On a busy machine a second may be too short for any file.
    heap: list[dict[str, str]] = []

    def ran_out() -> bool:
        heap.append(hasty.post(model=b"heap").json())
        return heap[-1]["code"] != "check_timeout"

    hasty.until(ran_out, "a file to take too much memory in time")
    assert heap[-1]["code"] == "out_of_memory"
    assert heap[-1]["message"].startswith("Memory ran out.")  # there is no job
    assert hasty.files() == set()
    assert list(tmp_path.iterdir()) == []
    hasty.until(lambda: hasty.post().status_code == 202, "a good file to be checked in time")
    hasty.stop()


def test_a_client_that_goes_away_leaves_nothing(server: Any) -> None:
    server.settle()
    files = server.files()
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        head = "POST /quantize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999999\r\n"
        wire.sendall(
            head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + _HEAD + bytes(2**21)
        )
        server.until(lambda: any("/staging/" in name for name in server.files()), "the upload to begin")
    server.until(lambda: server.files() == files, "the upload to be removed")


def test_many_clients_at_once_get_one_job_each(server: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as threads:
        jobs = list(threads.map(lambda _: server.submit(), range(8)))
    assert len(set(jobs)) == 8
    for job in jobs:
        assert server.wait_for(job, "succeeded", "failed")["attempt"] == 1


def test_the_server_answers_while_a_file_is_checked(server: Any, gate: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(server.post, model=gate.check)
        server.until(lambda: gate.reached, "the check to begin")
        assert server.http.get("/healthz").is_success
        assert server.http.get("/jobs").is_success
        assert not slow.done()
        gate.open()
        assert slow.result().status_code == 202
    server.wait_for(slow.result().json()["id"], "succeeded")
