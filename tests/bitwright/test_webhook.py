"""The end of a job is told to whoever the client named: by the library, its awaited twin, a batch and the command."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import queue
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bitwright import AsyncClient, Client, InvalidRequestError
from bitwright.cli import main

SECRET = "of some length at least"
Told = "queue.Queue[tuple[str, bytes, str]]"


@pytest.fixture
def listener() -> Iterator[tuple[str, Told]]:
    """An address, and what is told there: path, body and signature."""
    told: Told = queue.Queue()

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.put((self.path, body, self.headers["X-Bitwright-Signature"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", told
        listening.shutdown()


@pytest.fixture(scope="module")
def telling(make_server: Callable[..., Any]) -> Iterator[Any]:
    """A service that may send something to this machine."""
    running = make_server(BITWRIGHT_WEBHOOK_HOSTS="127.0.0.1", BITWRIGHT_WEBHOOK_SECRET=SECRET)
    yield running
    running.stop()


def test_the_end_is_told_however_the_job_was_sent(
    telling: Any,
    listener: tuple[str, Told],
    model_file: Path,
    sample_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, told = listener
    sent: dict[str, str] = {}
    with Client(telling.url) as client:
        job = client.quantize(model_file, data=sample_file, size=0.5, webhook=f"{address}/plain")
        sent["/plain"] = job.id
        sent["/again"] = job.wait().quantize(size=0.4, webhook=f"{address}/again").id
        request: Any = {"model": model_file, "data": sample_file, "size": 0.3, "webhook": f"{address}/batch"}
        (result,) = client.quantize_many([request])
        assert result.job is not None
        sent["/batch"] = result.job.id

    async def awaited() -> str:
        async with AsyncClient(telling.url) as client:
            return (await client.analyze(model_file, data=sample_file, webhook=f"{address}/awaited")).id

    sent["/awaited"] = asyncio.run(awaited())
    monkeypatch.setenv("BITWRIGHT_URL", telling.url)
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "submit",
                str(model_file),
                "--data",
                str(sample_file),
                "--webhook",
                f"{address}/command",
                "--wait",
            ]
        )
    assert ended.value.code == 0
    found: dict[str, str] = {}
    while len(found) < len(sent) + 1:  # a listener that is slow to answer is told again
        path, body, signature = told.get(timeout=900)
        stamp, digest = (part.partition("=")[2] for part in signature.split(","))
        assert digest == hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        assert json.loads(body)["state"] == "succeeded"
        found[path] = json.loads(body)["id"]
    assert {path: found[path] for path in sent} == sent
    assert found.keys() == {*sent, "/command"}


def test_other_hosts_are_refused(telling: Any, model_file: Path, sample_file: Path) -> None:
    with Client(telling.url) as client, pytest.raises(InvalidRequestError) as refused:
        client.quantize(model_file, data=sample_file, webhook="http://elsewhere.example/x")
    assert (refused.value.code, refused.value.where) == ("webhook", "query.webhook")
