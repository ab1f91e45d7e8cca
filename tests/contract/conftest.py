"""Every executor, to be held against one contract."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.executors.local import LocalExecutor
from app.executors.protocol import Executor, Outcome, Task, Ticket
from quant_core.spec import Progress, QuantizeSpec

FAKES = Path(__file__).parents[1] / "app" / "fakes"
MEMORY = 4 * 2**30


@dataclass
class Watched:
    """An attempt under way, and what it has said so far."""

    executor: Executor
    ticket: Ticket
    steps: list[Progress] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    outcome: Outcome | None = None

    def look(self) -> None:
        update = self.executor.poll(self.ticket)
        self.steps += update.steps
        self.checkpoints += update.checkpoints
        self.outcome = self.outcome or update.outcome

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s; so far: {self}"
            self.look()
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        """The process of the fake engine, once it has told."""
        said: list[int] = []

        def told() -> bool:
            said[:] = [int(s.message[4:]) for s in self.steps if s.message.startswith("pid=")]
            return bool(said)

        self.until(told)
        return said[0]

    def end(self, seconds: float = 60) -> Outcome:
        self.until(lambda: self.outcome, seconds)
        assert self.outcome is not None
        return self.outcome


Start = Callable[..., Watched]


@pytest.fixture(scope="module", params=["local"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """An executor with the fake engine on one CPU, with limited memory."""
    assert request.param == "local"
    engines = {"quantize": "fake_engine:quantize", "analyze": "fake_engine:analyze"}
    sys.path.insert(0, str(FAKES))  # what is started takes over the path
    made = LocalExecutor(("cpu",), engines, memory=MEMORY)  # type: ignore[arg-type]
    made.start()
    yield made
    made.close()
    sys.path.remove(str(FAKES))


@pytest.fixture
def start(executor: Executor, tmp_path: Path) -> Start:
    """Start an attempt; the fake engine's behaviour is chosen by the seed."""

    def make(seed: int = 0, checkpoints: Path | None = None) -> Watched:
        attempt = len(list(tmp_path.iterdir())) + 1
        scratch = tmp_path / f"{seed}-{attempt}"
        (scratch / "in").mkdir(parents=True)
        if checkpoints is not None:
            shutil.copytree(checkpoints, scratch / "checkpoints")
        (scratch / "in" / "m.onnx").write_bytes(b"\x08\x0a a small model")
        (scratch / "in" / "d.npz").write_bytes(b"PK")
        spec = QuantizeSpec(seed=seed)
        task = Task(f"job{seed}", attempt, scratch / "in" / "m.onnx", scratch / "in" / "d.npz", spec, scratch)
        return Watched(executor, executor.submit(task, "cpu"))

    return make
