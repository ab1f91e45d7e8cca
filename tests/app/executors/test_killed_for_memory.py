"""A process that the kernel ended for lack of memory is told from one that somebody killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.executors import killed_for_memory as counting
from app.executors import local
from app.executors.local import LocalExecutor
from app.executors.protocol import Outcome, Task
from quant_core.spec import QuantizeSpec
from tests.app.service import FAKES


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    monkeypatch.syspath_prepend(str(FAKES))
    made = LocalExecutor(("cpu",), {"quantize": "fake_engine:quantize"})
    made.start()
    yield made
    made.close()


def _killed(executor: LocalExecutor, folder: Path) -> Outcome:
    for name in ("m.onnx", "d.npz"):
        (folder / name).write_bytes(b"\x08")
    ticket = executor.submit(
        Task("j", 1, folder / "m.onnx", folder / "d.npz", QuantizeSpec(seed=1), folder), "cpu"
    )
    pid, outcome, deadline = None, None, time.monotonic() + 900
    while outcome is None and time.monotonic() < deadline:
        update = executor.poll(ticket)
        for step in update.steps:
            if step.message.startswith("pid=") and pid is None:
                pid = int(step.message[4:])
                os.kill(pid, signal.SIGKILL)
        outcome = update.outcome
        time.sleep(0.01)
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(("counts", "code"), [((4, 5), "out_of_memory"), ((4, 4), "worker_lost")])
def test_the_kernels_count_tells(
    executor: LocalExecutor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counts: tuple[int, int],
    code: str,
) -> None:
    told = iter(counts)
    monkeypatch.setattr(local, "killed_for_memory", lambda: next(told))
    outcome = _killed(executor, tmp_path)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.with_less) == (code, code == "out_of_memory")


def test_what_the_system_counts_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "events").write_text("low 0\noom 7\noom_kill 3\noom_group_kill 0\n")
    (tmp_path / "vmstat").write_text("nr_free_pages 10\noom_kill 2\n")
    monkeypatch.setattr(
        counting, "_COUNTERS", (tmp_path / "events", tmp_path / "vmstat", tmp_path / "not there")
    )
    assert counting.killed_for_memory() == 5
