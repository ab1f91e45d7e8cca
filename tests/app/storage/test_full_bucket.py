"""A bucket that is full says so in words of its own; here it is a full disk like any other."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.api.problems import ProblemError
from app.api.storing import storing
from app.storage.s3 import S3Objects

FULL = b"""<?xml version="1.0"?><Error><Code>XMinioStorageFull</Code><Message>Storage backend has reached its
minimum free drive threshold. Please delete a few objects to proceed.</Message></Error>"""


@pytest.fixture
def full_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A store that answers every request as MinIO does where it is full, and what it was asked."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    asked: list[str] = []

    class Full(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(507)
            self.send_header("Content-Length", str(len(FULL)))
            self.end_headers()
            self.wfile.write(FULL)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Full) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", asked
        listening.shutdown()


def test_a_full_bucket_is_a_full_disk(full_store: tuple[str, list[str]], tmp_path: Path) -> None:
    endpoint, asked = full_store
    objects = S3Objects("bucket", "", {"endpoint": endpoint, "region": "us-east-1"}, None)
    file = tmp_path / "file"
    file.write_bytes(b"content")
    with pytest.raises(OSError, match=r"XMinioStorageFull|507") as refused:
        objects.put(file, "contents/x")
    assert refused.value.errno == errno.ENOSPC
    assert file.exists()  # it is not lost
    assert 1 < len(asked) <= 5  # it may be a moment's trouble; nobody waits for minutes
    with pytest.raises(ProblemError) as told, storing():
        objects.write("folders/x", b"{}")
    assert (told.value.status, told.value.error.code) == (507, "storage")
