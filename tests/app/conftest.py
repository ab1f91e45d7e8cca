"""A real service in a process of its own, with a fake engine unless a test asks for the real one."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from quant_core.spec import RUNNING

FAKES = Path(__file__).parent / "fakes"
MODEL = b"\x08\x0a a small model"


def samples() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, input=np.zeros((4, 3), np.float32))
    return buffer.getvalue()


@dataclass
class Server:
    """One service process and how to talk to it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, port: int = 0) -> None:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            **os.environ,
            "PYTHONPATH": str(FAKES),
            "BITWRIGHT_ENGINE": "fake_engine:quantize",
            "BITWRIGHT_VALIDATOR": "fake_engine:validate",
            "BITWRIGHT_ANALYZER": "fake_engine:analyze",
            "BITWRIGHT_ANALYSIS_VALIDATOR": "fake_engine:validate",
            **self.environment,
        }
        arguments = ["--port", str(self.port), "--data-dir", str(self.folder), "--devices", "cpu"]
        self.log = self.folder.with_suffix(".log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bitwright", "serve", *arguments],
            env=environment,
            stdout=self.log,
            stderr=self.log,
        )
        self.http = httpx.Client(base_url=self.url, timeout=180, trust_env=False)
        self.until(lambda: self.answers() or self.process.poll() is not None, "the service to start", 300)
        assert self.process.poll() is None, self.folder.with_suffix(".log").read_text()

    def answers(self) -> bool:
        try:
            return self.http.get("/healthz").is_success
        except httpx.TransportError:
            return False

    def stop(self, sig: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(60)
        self.http.close()
        self.log.close()

    def post(self, *, model: Any = MODEL, data: Any = None, **spec: Any) -> httpx.Response:
        import json

        parts = {"model": ("m.onnx", model), "data": ("d.npz", samples() if data is None else data)}
        return self.http.post("/quantize", files=parts, data={"spec": json.dumps(spec)})

    def submit(self, **spec: Any) -> str:
        answer = self.post(**spec)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait_until_running(self, job_id: str, seconds: float = 120) -> dict[str, Any]:
        return self.wait_for(job_id, *RUNNING, seconds=seconds)

    def wait_for(self, job_id: str, *states: str, seconds: float = 120) -> dict[str, Any]:
        self.until(lambda: self.job(job_id)["state"] in states, f"{job_id} to be {states}", seconds)
        return self.job(job_id)

    def worker(self, job_id: str, attempt: int = 1) -> int:
        """Wait until the fake engine has told its process id in an attempt."""
        import json

        seen: list[int] = []

        def said() -> list[int]:
            with self.http.stream("GET", f"/jobs/{job_id}/events") as answer:
                for line in answer.iter_lines():
                    if line.startswith("data:") and "pid=" in line:
                        seen.append(int(json.loads(line[5:])["message"].removeprefix("pid=")))
                    if len(seen) == attempt:
                        break
            return seen

        found = said()
        assert len(found) == attempt, "the worker did not start"
        return found[-1]

    def children(self) -> set[int]:
        """Process ids of everything the service started."""
        return {
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal() and _parent(int(entry.name)) == self.process.pid
        }

    @staticmethod
    def alive(pid: int) -> bool:
        return _parent(pid) is not None

    @staticmethod
    def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s for {what}")
            time.sleep(0.02)

    def stored(self, job_id: str, part: str) -> dict[str, Path]:
        """Where the files of a job's folder lie, by their names in it; a content may be shared with other jobs."""
        import json

        store = self.folder / "store"
        names = json.loads((store / "folders" / job_id / f"{part}.json").read_text())
        return {name: store / "contents" / digest[:2] / digest for name, digest in names.items()}

    def files(self) -> set[str]:
        """Everything a request or a job can leave behind, besides contents that wait to be swept."""
        return {
            str(path.relative_to(self.folder))
            for room in ("services/*/staging", "services/*/scratch", "store/folders")
            for path in self.folder.glob(f"{room}/**/*")
            if path.is_file()
        }


def _parent(pid: int) -> int | None:
    """The parent of a process; None once it has ended."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(parent)


@pytest.fixture(scope="session")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start services that differ in their environment; all are killed in the end."""
    started: list[Server] = []

    def make(**environment: str) -> Server:
        running = Server(tmp_path_factory.mktemp("service") / "data", environment)
        started.append(running)
        running.start()
        return running

    yield make
    for running in started:
        running.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def server(make_server: Callable[..., Server]) -> Server:
    """A service that all tests share; it must stand what they do."""
    return make_server()


@pytest.fixture
def strict_server(make_server: Callable[..., Server]) -> Iterator[Server]:
    """A service that takes 3 MB at most and checks for a second at most."""
    running = make_server(BITWRIGHT_UPLOAD_LIMIT=str(3 * 2**20), BITWRIGHT_CHECK_TIMEOUT="1")
    yield running
    running.stop()


@pytest.fixture
def own_server(make_server: Callable[..., Server]) -> Server:
    """A service that a test may kill."""
    return make_server()


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(MODEL)
    return path


@pytest.fixture
def sample_file(tmp_path: Path) -> Path:
    path = tmp_path / "d.npz"
    path.write_bytes(samples())
    return path
