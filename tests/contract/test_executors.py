"""What every executor promises: whatever becomes of an attempt is told, its process is gone, and the next one runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.executors.protocol import Executor
from quant_core.spec import STAGES


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def _works(start: Callable[..., Any]) -> None:
    assert start(100).end().state == "succeeded"


def test_steps_come_in_order_then_the_outcome_then_nothing(start: Callable[..., Any]) -> None:
    run = start()
    outcome = run.end()
    assert outcome.state == "succeeded"
    assert outcome.summary is not None
    assert list(dict.fromkeys(step.stage for step in run.steps)) == list(STAGES)
    assert (run.ticket.task.out / "model.onnx").is_file()
    before = len(run.steps)
    run.look()
    assert len(run.steps) == before
    run.until(lambda: _gone(run.pid))


@pytest.mark.parametrize("seed", [1, 2], ids=["in Python", "in C, holding the interpreter"])
def test_a_canceled_attempt_is_killed_whatever_it_does(
    executor: Executor, start: Callable[..., Any], seed: int
) -> None:
    run = start(seed)
    pid = run.pid
    executor.cancel(run.ticket)
    executor.cancel(run.ticket)  # twice is as good as once
    assert run.end().state == "canceled"
    assert _gone(pid)  # before the outcome is told: its files can be removed
    _works(start)


def test_an_attempt_canceled_before_it_began_ends_too(executor: Executor, start: Callable[..., Any]) -> None:
    run = start(1)
    executor.cancel(run.ticket)
    assert run.end().state == "canceled"
    _works(start)


@pytest.mark.parametrize(("seed", "name"), [(1, "SIGKILL"), (3, "SIGSEGV")])
def test_a_lost_process_is_told_with_its_signal(start: Callable[..., Any], seed: int, name: str) -> None:
    run = start(seed)
    if name == "SIGKILL":
        os.kill(run.pid, signal.SIGKILL)
    outcome = run.end()
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert outcome.error.code == "worker_lost"
    assert name in outcome.error.message
    assert _gone(run.pid)
    _works(start)


def test_an_attempt_that_wants_too_much_memory_fails_alone(start: Callable[..., Any]) -> None:
    run = start(8)
    outcome = run.end()
    assert outcome.error is not None
    assert outcome.error.code == "out_of_memory"
    assert outcome.error.remedy
    assert outcome.with_less
    run.until(lambda: _gone(run.pid))
    _works(start)


@pytest.mark.parametrize(("seed", "code"), [(4, "internal"), (5, "infeasible_budget"), (6, "out_of_memory")])
def test_failures_come_with_a_code_and_a_remedy(start: Callable[..., Any], seed: int, code: str) -> None:
    outcome = start(seed).end()
    assert outcome.error is not None
    assert (outcome.state, outcome.error.code) == ("failed", code)
    assert outcome.error.remedy
    assert outcome.with_less == (code == "out_of_memory")


def test_the_engine_is_told_how_much_memory_its_batches_may_take(start: Callable[..., Any]) -> None:
    assert start(12, memory_share=0.25).end().with_less
    assert start(12, memory_share=1 / 16).end().state == "succeeded"


def test_the_next_attempt_goes_on_from_the_checkpoint_of_one_that_was_killed(
    start: Callable[..., Any],
) -> None:
    first = start(7)
    first.until(lambda: first.checkpoints)
    assert first.checkpoints == ["sensitivity"]
    os.kill(first.pid, signal.SIGKILL)
    assert first.end().error is not None
    second = start(7, checkpoints=first.ticket.task.checkpoints)
    assert second.end().state == "succeeded"
    assert f"goes on from {first.pid}" in [step.message for step in second.steps]


def test_nothing_is_left_when_an_executor_is_closed(start: Callable[..., Any], executor: Executor) -> None:
    run = start(1)
    pid = run.pid
    executor.close()
    assert _gone(pid)
