"""Every executor, to be held against one contract."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.executors import Cluster, RayExecutor
from app.executors.local import LocalExecutor
from app.executors.protocol import Executor, Outcome, Task, Ticket
from quant_core.spec import JobKind, Progress, QuantizeSpec
from tests.app.ray_cluster import TOKEN, ray_cluster
from tests.app.service import FAKES, PATIENCE, gate

__all__ = ["gate"]

MEMORY = 4 * 2**30
ENGINES: dict[JobKind, str] = {"quantize": "fake_engine:quantize", "analyze": "fake_engine:analyze"}


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

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE} s; so far: {self}"
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

    def end(self) -> Outcome:
        self.until(lambda: self.outcome)
        assert self.outcome is not None
        return self.outcome


Start = Callable[..., Watched]


@pytest.fixture(scope="session")
def make_cluster() -> Iterator[Callable[[], Any]]:
    """Make Ray clusters without nodes; all their processes end with the tests."""
    pytest.importorskip("ray", reason="needs Ray: pip install -c constraints.txt -e '.[cluster]'")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(ray_cluster(FAKES))


@pytest.fixture(scope="session")
def one_node(make_cluster: Callable[[], Any]) -> Any:
    """A cluster of one machine with two processors and two GPUs that are not there."""
    cluster = make_cluster()
    cluster.start(cpus=2, gpus=2)
    return cluster


@pytest.fixture(scope="module")
def reach(one_node: Any) -> Iterator[Callable[..., RayExecutor]]:
    """Make executors of that cluster."""

    def make(devices: tuple[str, ...] = ("cpu",), silence: float = 60, token: str = "") -> RayExecutor:
        token = token or TOKEN
        cluster = Cluster(one_node.address, token, memory=MEMORY, silence=silence)
        made.append(RayExecutor(cluster, devices, ENGINES))
        made[-1].start()
        return made[-1]

    made: list[RayExecutor] = []
    yield make
    for executor in made:
        executor.close()


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """An executor with the fake engine on one CPU, with limited memory."""
    sys.path.insert(0, str(FAKES))  # what is started takes over the path
    made: Executor = (
        LocalExecutor(("cpu",), ENGINES, memory=MEMORY)
        if request.param == "local"
        else request.getfixturevalue("reach")()
    )
    made.start()
    yield made
    made.close()
    sys.path.remove(str(FAKES))


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Start]:
    """Start an attempt on an executor; the fake engine's behaviour is chosen by the seed. None outlives the test."""
    begun: list[Watched] = []

    def make(
        executor: Executor,
        seed: int = 0,
        *,
        attempt: int | None = None,
        device: str = "cpu",
        checkpoints: Path | None = None,
        model: bytes = b"\x08\x0a a small model",
        memory_share: float = 1.0,
    ) -> Watched:
        attempt = attempt or len(list(tmp_path.iterdir())) + 1
        scratch = tmp_path / f"{seed}-{attempt}"
        (scratch / "in").mkdir(parents=True)
        if checkpoints is not None:
            shutil.copytree(checkpoints, scratch / "checkpoints")
        (scratch / "in" / "m.onnx").write_bytes(model)
        (scratch / "in" / "d.npz").write_bytes(b"PK")
        files = scratch / "in" / "m.onnx", scratch / "in" / "d.npz"
        task = Task(
            f"{tmp_path.name}-{seed}",
            attempt,
            *files,
            QuantizeSpec(seed=seed),
            scratch,
            memory_share=memory_share,
        )
        begun.append(Watched(executor, executor.submit(task, device)))
        return begun[-1]

    yield make
    for run in begun:
        run.look()
        if run.outcome is None:
            run.executor.cancel(run.ticket)


@pytest.fixture
def start(executor: Executor, begin: Start) -> Start:
    """Start an attempt on the executor under test."""
    return partial(begin, executor)
