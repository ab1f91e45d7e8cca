"""A real service in a process of its own, with a fake engine unless a test asks for the real one."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from quant_core.spec import ENDED, RUNNING

FAKES = Path(__file__).parent / "fakes"
MODEL = b"\x08\x0a a small model"
PATIENCE = 900.0
"""Seconds that a test waits for what must come: how soon it does is nobody's promise, and machines are busy."""


def samples() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, input=np.zeros((4, 3), np.float32))
    return buffer.getvalue()


class Gate:
    """A file that the fake engine waits for, so that a test alone says when a job or a check goes on.

    Attributes:
        model: What a job sends whose engine is to wait (seeds 9 and 11).
        check: What a job sends whose check is to wait.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.model = MODEL + b" until " + bytes(path)
        self.check = b"check until " + bytes(path)

    def open(self) -> None:
        self._path.touch()

    @property
    def reached(self) -> bool:
        """Whether a check waits, or has waited."""
        return self._path.with_suffix(".reached").exists()


@dataclass
class Server:
    """One service process and how to talk to it; it keeps its address as long as this lives."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Bound and never listened at: nobody else is given the port, and the service may listen all the same.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port = self._place.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
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
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, verify=False)
        self.until(lambda: self.answers() or self.process.poll() is not None, "the service to start")
        assert self.process.poll() is None, self.folder.with_suffix(".log").read_text()

    def answers(self) -> bool:
        try:
            return self.http.get("/healthz").is_success
        except httpx.TransportError:
            return False

    def stop(self, sig: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(PATIENCE)
        self.http.close()
        self.log.close()

    def freeze(self) -> None:
        """Stop it for a while, but not in the midst of a write to SQLite, which would keep all others from writing."""
        while True:
            self.process.send_signal(signal.SIGSTOP)
            self.until(self._is_still, "the service to stand still")
            if not self._writes():
                return
            self.thaw()
            time.sleep(0.05)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def _is_still(self) -> bool:
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        try:
            return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)
        except (FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            return False

    def _writes(self) -> bool:
        held = (line.split() for line in Path("/proc/locks").read_text().splitlines())
        return any(f[1] == "POSIX" and f[3:5] == ["WRITE", str(self.process.pid)] for f in held)

    def end(self) -> None:
        """Kill it and give its address back."""
        self.stop(signal.SIGKILL)
        self._place.close()

    def post(self, *, model: Any = MODEL, data: Any = None, **spec: Any) -> httpx.Response:
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

    def wait_until_running(self, job_id: str) -> dict[str, Any]:
        return self.wait_for(job_id, *RUNNING)

    def wait_for(self, job_id: str, *states: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def there() -> bool:
            found.update(self.job(job_id))
            assert found["state"] in {*states, "queued", *RUNNING}, found
            return found["state"] in states

        self.until(there, f"{job_id} to be {states}")
        return found

    def worker(self, job_id: str, attempt: int = 1) -> int:
        """Wait until the fake engine has told its process id in an attempt."""
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

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """All that a job told until its end."""
        text = self.http.get(f"/jobs/{job_id}/events").text
        return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]

    def ends(self, job_id: str) -> list[str]:
        """The states among these that a job does not leave."""
        return [event["state"] for event in self.events(job_id) if event.get("state") in ENDED]

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
    def until(condition: Callable[[], object], what: str) -> None:
        started = time.monotonic()
        while not condition():
            waited = time.monotonic() - started
            if waited > PATIENCE:
                raise AssertionError(f"waited {PATIENCE} s for {what}")
            time.sleep(min(max(0.02, waited / 10), 0.5))  # each look takes time from what is waited for

    def settle(self) -> None:
        """Wait until no job of earlier tests comes or goes any more."""
        active = {"state": ["queued", *RUNNING]}
        self.until(lambda: self.http.get("/jobs", params=active).json()["total"] == 0, "jobs to end")
        self.until(lambda: not any("/scratch/" in name for name in self.files()), "their files to go")

    def until_gone(self, word: str) -> None:
        """Wait until no file is left whose name has a word in it, such as a job's id."""
        self.until(lambda: not any(word in name for name in self.files()), f"files of {word} to go")

    def stored(self, job_id: str, part: str) -> dict[str, Path]:
        """Where the files of a job's folder lie, by their names in it; a content may be shared with other jobs."""
        store = self.folder / "store"
        names = json.loads((store / "folders" / job_id / f"{part}.json").read_text())
        return {name: store / "contents" / digest[:2] / digest for name, digest in names.items()}

    def files(self) -> set[str]:
        """Everything a request or a job can leave behind, besides contents that wait to be swept."""
        return {
            str((Path(folder) / name).relative_to(self.folder))
            for room in ("services/*/staging", "services/*/scratch", "store/folders")
            for start in self.folder.glob(room)
            for folder, _, names in os.walk(start)  # which minds no folder that goes meanwhile
            for name in names
        }


def _parent(pid: int) -> int | None:
    """The parent of a process; None once it has ended."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(parent)


@contextmanager
def services() -> Iterator[Callable[..., Server]]:
    """Start services, each on a folder and with an environment; all are killed in the end."""
    with ExitStack() as started:

        def start(folder: Path, environment: dict[str, str]) -> Server:
            running = Server(folder, environment)
            started.callback(running.end)
            running.start()
            return running

        yield start


@pytest.fixture(scope="session")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start services that differ in their environment, each on a folder of its own."""
    with services() as start:
        yield lambda **environment: start(tmp_path_factory.mktemp("service") / "data", environment)


@pytest.fixture(scope="session")
def server(make_server: Callable[..., Server]) -> Server:
    """A service that all tests share; it must stand what they do."""
    return make_server()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate, closed until the test opens it; nothing waits at it afterwards."""
    made = Gate(tmp_path / "gate")
    yield made
    made.open()


@pytest.fixture
def own_server(make_server: Callable[..., Server]) -> Iterator[Server]:
    """A service that a test may kill."""
    running = make_server()
    yield running
    running.stop()


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
