"""What the service asks of a cluster, without one: whom it tells, how long it waits, when it gives up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.executors import Cluster, RayExecutor, Task
from quant_core.spec import QuantizeSpec


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Bridge:
    """A process that speaks to no cluster, and remembers what it is told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.told: list[tuple[str, Any]] = []
        self.heard: float | None = None
        self.total = self.free = SimpleNamespace(gpus=0, cpus=0)
        self.code: int | None = None
        self.process = SimpleNamespace(poll=lambda: self.code, kill=self.die, returncode=3)
        self.ended: list[float] = []

    def die(self) -> None:
        self.code = 3

    def says(self, total: tuple[int, int], free: tuple[int, int]) -> None:
        self.total, self.free = (SimpleNamespace(gpus=gpus, cpus=cpus) for gpus, cpus in (total, free))
        self.heard = self.clock.now

    def tell(self, line: dict[str, Any]) -> None:
        for what, content in line.items():
            if what != "gpus":
                self.told.append((what, content["job_id"] if what == "submit" else content))

    def end(self, seconds: float) -> None:
        self.ended.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("app.executors.ray_executor.time", clock)
    return clock


@pytest.fixture
def bridges(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[Bridge]:
    built: list[Bridge] = []

    def build(_: RayExecutor) -> Bridge:
        built.append(Bridge(clock))
        return built[-1]

    monkeypatch.setattr(RayExecutor, "_built", build)
    return built


def executor(*devices: str, silence: float = 90.0) -> RayExecutor:
    cluster = Cluster("127.0.0.1:1", "0123456789abcdef", silence=silence)
    return RayExecutor(cluster, devices or ("auto",), {"quantize": "a:b"})


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Task]:
    def made() -> Iterator[Task]:
        for name in "abc":
            scratch = tmp_path / name
            scratch.mkdir()
            yield Task(name, 1, scratch / "m.onnx", scratch / "d.npz", QuantizeSpec(), scratch)

    return made()


def test_only_fresh_words_tell_how_many_find_a_place(clock: Clock, bridges: list[Bridge]) -> None:
    fixed = executor("cpu", "cpu", "cpu")
    assert fixed.capacity(0) == 0
    bridges[0].says((0, 8), (0, 8))
    assert [fixed.capacity(busy) for busy in (0, 1, 3, 5)] == [3, 2, 0, 0]
    clock.now += 5
    assert fixed.capacity(0) == 3
    clock.now += 0.1
    assert fixed.capacity(0) == 0
    assert fixed.fault is None
    clock.now += 4.9
    assert fixed.fault is None
    clock.now += 0.1
    assert fixed.fault == "The Ray cluster cannot be reached; jobs are taken and wait for it."


def test_a_task_that_the_cluster_has_not_seen_yet_takes_a_place(
    clock: Clock, bridges: list[Bridge], tasks: Iterator[Task]
) -> None:
    every = executor()
    every.capacity(0)
    bridges[0].says((0, 4), (0, 3))
    assert list(every.devices) == ["cpu/0", "cpu/1", "cpu/2", "cpu/3"]
    assert every.capacity(0) == 3
    assert every.submit(next(tasks), "cpu/1").gpus == 0
    assert every.capacity(1) == 2
    clock.now += 3
    assert every.capacity(1) == 3
    bridges[0].says((2, 4), (0, 3))
    assert list(every.devices) == ["cuda/0", "cuda/1"]
    assert every.submit(next(tasks), "cuda/0").gpus == 1
    assert every.capacity(2) == 0


def test_a_new_bridge_is_told_of_what_is_open_and_comes_later_each_time(
    clock: Clock, bridges: list[Bridge], tasks: Iterator[Task]
) -> None:
    here = executor("cpu")
    first, second, third = (here.submit(task, "cpu") for task in tasks)
    assert bridges[0].told == [("submit", "a"), ("submit", "b"), ("submit", "c")]
    here.cancel(second)
    third.task.messages.write_text(json.dumps({"outcome": {"state": "canceled"}}) + "\n")
    assert here.poll(third).outcome is not None
    waits = []
    for _ in range(7):
        bridges[-1].die()
        built, died = len(bridges), clock.now
        while len(bridges) == built:
            clock.now += 0.25
            first.submitted = second.submitted = clock.now  # nobody gives up
            here.poll(first)
        waits.append(clock.now - died)
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert bridges[1].told == [("submit", "a"), ("submit", "b"), ("cancel", "b-1")]
    assert [bridge.ended for bridge in bridges[:2]] == [[0], [0]]
    bridges[-1].says((0, 1), (0, 1))
    assert here.capacity(0) == 1
    bridges[-1].die()
    built = len(bridges)
    here.capacity(0)
    clock.now += 30
    here.capacity(0)
    assert len(bridges) == built + 1
    bridges[-1].die()
    clock.now += 2
    here.capacity(0)
    assert len(bridges) == built + 2


def test_a_bridge_without_a_word_makes_way_for_another(clock: Clock, bridges: list[Bridge]) -> None:
    here = executor("cpu")
    here.capacity(0)
    clock.now += 60
    here.capacity(0)
    assert bridges[0].code is None
    clock.now += 0.1
    here.capacity(0)
    assert bridges[0].code is not None
    here.capacity(0)
    assert len(bridges) == 2


@pytest.mark.parametrize("canceled", [False, True])
def test_an_attempt_is_given_up_after_silence_and_must_not_go_on(
    canceled: bool, clock: Clock, bridges: list[Bridge], tasks: Iterator[Task]
) -> None:
    here = executor("cpu", silence=20.0)
    clock.now += 100  # what was before it was sent does not count
    ticket = here.submit(next(tasks), "cpu")
    if canceled:
        here.cancel(ticket)
    bridges[0].told.clear()
    clock.now += 20
    assert here.poll(ticket).outcome is None
    clock.now += 0.1
    outcome = here.poll(ticket).outcome
    assert outcome is not None
    assert outcome.state == ("canceled" if canceled else "failed")
    if not canceled:
        assert outcome.error is not None
        assert outcome.error.code == "worker_lost"
        assert outcome.error.retryable
        assert "could not be reached for 20 s" in outcome.error.message
    assert bridges[0].told == [("cancel", "a-1")]
    bridges[0].die()
    clock.now += 1
    here.capacity(0)
    assert bridges[1].told == []


def test_words_of_the_cluster_keep_an_attempt_alive(
    clock: Clock, bridges: list[Bridge], tasks: Iterator[Task]
) -> None:
    here = executor("cpu", silence=20.0)
    ticket = here.submit(next(tasks), "cpu")
    for _ in range(4):
        clock.now += 15
        bridges[0].says((0, 1), (0, 0))
        assert here.poll(ticket).outcome is None


def test_an_attempt_that_bridges_die_of_is_lost(
    clock: Clock, bridges: list[Bridge], tasks: Iterator[Task]
) -> None:
    here = executor("cpu", silence=1e6)
    ticket = here.submit(next(tasks), "cpu")
    while len(bridges) < 5:
        bridges[-1].die()
        clock.now += 60
        assert here.poll(ticket).outcome is None
    bridges[-1].die()
    clock.now += 60
    outcome = here.poll(ticket).outcome
    assert outcome is not None
    assert outcome.error is not None
    assert "broke off 5 times" in outcome.error.message


def test_what_was_closed_reaches_out_no_more(clock: Clock, bridges: list[Bridge]) -> None:
    here = executor("cpu")
    here.capacity(0)
    here.close()
    here.close()
    assert bridges[0].told == [("close", True)]
    assert bridges[0].ended == [20.0]
    clock.now += 100
    assert here.capacity(0) == 0
    assert len(bridges) == 1


def test_tickets_of_others_are_refused() -> None:
    here = executor("cpu")
    with pytest.raises(TypeError, match="another executor"):
        here.poll(SimpleNamespace(task=None))
