"""What a cluster adds to the contract: places, takeovers, and processes that nobody asks for any more."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.executors import RayExecutor

pytestmark = pytest.mark.slow

Begin = Callable[..., Any]
Reach = Callable[..., RayExecutor]


def _stat(pid: int) -> list[str] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields


def _gone(pid: int) -> bool:
    return _stat(pid) is None


def _parent(pid: int) -> int:
    found = _stat(pid)
    assert found is not None
    return int(found[1])


def _until(condition: Callable[[], object]) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < 900
        time.sleep(0.02)
    return time.monotonic() - started


def _folders(cluster: Any) -> set[str]:
    return {path.name for path in cluster.temporary.glob("bitwright-attempt-*")}


def _bridge(executor: RayExecutor) -> int:
    assert executor._bridge is not None
    return executor._bridge.process.pid


def _told(run: Any) -> dict[str, Any]:
    assert run.end().state == "succeeded"
    (message,) = (step.message for step in run.steps if step.message.startswith("{"))
    found: dict[str, Any] = json.loads(message)
    return found


def test_an_attempt_sees_the_gpu_it_was_given_and_no_secret(reach: Reach, begin: Begin) -> None:
    executor = reach(("cpu", "cuda:0", "cuda:1"))
    on_gpu = _told(begin(executor, 11, device="cuda:0"))
    on_cpu = _told(begin(executor, 11))
    assert on_gpu["sees"] in {"0", "1"}
    assert on_cpu["sees"] == ""
    for names in (on_gpu["names"], on_cpu["names"]):
        assert not [name for name in names if name.startswith(("RAY", "BITWRIGHT", "AWS"))]
        assert "PATH" in names


def test_two_attempts_at_once_see_two_gpus(reach: Reach, begin: Begin, gate: Any) -> None:
    executor = reach(("auto",))
    _until(lambda: executor.capacity(0) == 2 and executor.devices == ("cuda/0", "cuda/1"))
    one = begin(executor, 11, device="cuda/0", model=gate.model)
    assert one.pid
    two = begin(executor, 1, device="cuda/1")
    assert executor.capacity(2) == 0
    engine = two.pid
    sees = Path(f"/proc/{engine}/environ").read_bytes().split(b"\0")  # as it was when the process was spawned
    gate.open()
    first = _told(one)["sees"]
    assert f"CUDA_VISIBLE_DEVICES={'1' if first == '0' else '0'}".encode() in sees
    executor.cancel(two.ticket)
    assert two.end().state == "canceled"
    _until(lambda: executor.capacity(0) == 2)


def test_files_of_many_pieces_arrive_whole(reach: Reach, begin: Begin) -> None:
    model = b"\x08" + os.urandom(30 * 2**20)
    run = begin(reach(), 0, model=model)
    assert run.end().state == "succeeded"
    assert (run.ticket.task.out / "model.onnx").read_bytes() == model[::-1]


def test_an_attempt_outlives_the_process_that_follows_it(reach: Reach, begin: Begin, gate: Any) -> None:
    executor = reach()
    run = begin(executor, 9, model=gate.model)
    engine = run.pid
    os.kill(_bridge(executor), signal.SIGKILL)
    gate.open()
    assert run.end().state == "succeeded"
    assert [step.message for step in run.steps if step.message.startswith("pid=")] == [f"pid={engine}"]
    assert len({(step.stage, step.message) for step in run.steps}) == len(run.steps)


def test_the_next_service_goes_on_with_what_a_dead_one_left_running(
    reach: Reach, begin: Begin, gate: Any
) -> None:
    first, second = reach(), reach()
    run = begin(first, 9, attempt=1, model=gate.model)
    engine = run.pid
    os.kill(_bridge(first), signal.SIGKILL)
    first._closed = True  # the service is gone: nobody starts it again
    later = begin(second, 9, attempt=2, model=gate.model)
    assert later.pid == engine  # nothing was done over
    gate.open()
    assert later.end().state == "succeeded"
    assert (later.ticket.task.out / "model.onnx").is_file()
    _until(lambda: _gone(engine))


def test_a_service_that_was_cut_off_can_neither_stop_nor_fetch_what_its_successor_goes_on_with(
    reach: Reach, begin: Begin, gate: Any
) -> None:
    first, second = reach(), reach()
    run = begin(first, 9, attempt=1, model=gate.model)
    engine = run.pid
    later = begin(second, 9, attempt=2, model=gate.model)
    later.until(lambda: later.pid == engine)
    first.cancel(run.ticket)
    assert run.end().state == "canceled"
    assert not run.ticket.task.out.exists()
    assert not _gone(engine)
    gate.open()
    assert later.end().state == "succeeded"


def test_when_the_actor_is_killed_nothing_of_it_is_left(reach: Reach, begin: Begin, one_node: Any) -> None:
    run = begin(reach(), 1)
    engine, before = run.pid, _folders(one_node)
    assert before
    started = time.monotonic()
    os.kill(_parent(engine), signal.SIGKILL)
    outcome = run.end()
    print(f"measured: actor killed, to the outcome: {time.monotonic() - started:.2f} s")
    assert outcome.error is not None
    assert outcome.error.code == "worker_lost"
    _until(lambda: _gone(engine))
    _until(lambda: not _folders(one_node) & before)


def test_an_attempt_that_nobody_asks_for_ends_itself(reach: Reach, begin: Begin, one_node: Any) -> None:
    assert (
        begin(reach(), 0).end().state == "succeeded"
    )  # a cold cluster may take longer to start than silence lasts
    executor = reach(silence=30)
    run = begin(executor, 2)  # holds its interpreter's lock
    engine, before = run.pid, _folders(one_node)
    os.kill(_bridge(executor), signal.SIGSTOP)
    seconds = _until(lambda: _gone(engine))
    print(f"measured: nobody asks, silence of 30 s, to the end of the process: {seconds:.2f} s")
    _until(lambda: not _folders(one_node) & before)
    os.kill(_bridge(executor), signal.SIGCONT)
    outcome = run.end()
    assert outcome.error is not None
    assert outcome.error.code == "worker_lost"


def test_an_attempt_waits_for_its_place_and_can_be_canceled_there(reach: Reach, begin: Begin) -> None:
    executor = reach()
    running = [begin(executor, 1), begin(executor, 2)]
    assert all(run.pid for run in running)
    third = begin(executor, 7)
    third.until(lambda: any("waiting for room" in step.message for step in third.steps))
    executor.cancel(third.ticket)
    assert third.end().state == "canceled"
    for run in running:
        executor.cancel(run.ticket)
        assert run.end().state == "canceled"


def test_without_the_token_there_is_no_way_in(reach: Reach, begin: Begin) -> None:
    executor = reach(silence=8, token="another-token-that-opens-nothing")
    run = begin(executor, 0)
    assert executor.capacity(0) == 0
    outcome = run.end()
    assert outcome.error is not None
    assert outcome.error.code == "worker_lost"
    assert "could not be reached" in outcome.error.message
    assert executor.capacity(0) == 0
