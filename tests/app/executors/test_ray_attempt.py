"""How one attempt on a cluster is followed: what is sent, fetched and told, who is ended, and when it is given up."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.executors.protocol import Task
from quant_core.spec import QuantizeSpec
from quant_core.version import __version__

STEP = {"stage": "ingest", "fraction": 0.5, "message": "half"}
DONE = ("outcome", {"state": "succeeded"})
OTHERS = {"OSError": OSError(errno.ENOSPC, "full"), "KeyError": KeyError("odd")}
FAILED = ("outcome", {"state": "failed", "error": {"code": "spec", "message": "No.", "remedy": "Yes."}})


@pytest.fixture
def task(tmp_path: Path) -> Task:
    scratch = tmp_path / "scratch"
    (scratch / "in").mkdir(parents=True)
    model, data = scratch / "in" / "m.onnx", scratch / "in" / "d.npz"
    model.write_bytes(b"model")
    data.write_bytes(b"")
    return Task("job", 2, model, data, QuantizeSpec(), scratch)


@pytest.fixture
def attempt(ray_attempt: Any, task: Task) -> Any:
    return ray_attempt.Attempt(task, 1, ray_attempt.Terms({"quantize": "a:b"}, 2**30, 1.5, 90.0))


def _told(task: Task) -> list[tuple[str, Any]]:
    lines = [json.loads(line) for line in task.messages.read_text(encoding="utf-8").splitlines()]
    return [pair for line in lines for pair in line.items()]


def _error(task: Task) -> dict[str, Any]:
    kind, outcome = _told(task)[-1]
    assert (kind, outcome["state"]) == ("outcome", "failed")
    found: dict[str, Any] = outcome["error"]
    return found


def _raise(error: BaseException) -> Callable[..., Any]:
    def answer(*_: Any) -> Any:
        raise error

    return answer


def test_files_go_out_and_results_come_back(
    attempt: Any, cluster: Any, ray_attempt: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_attempt, "_PIECE", 2)
    (task.checkpoints / "one").mkdir(parents=True)
    (task.checkpoints / "one" / "a").write_bytes(b"earlier")
    (task.scratch / "elsewhere").write_bytes(b"stays here")
    for name in ("out", ".out.part"):  # of one who fetched before, and of one who did not end
        (task.scratch / name).mkdir()
        (task.scratch / name / "old").touch()
    actor = cluster.actor(("progress", STEP), ("checkpoint", "two"), DONE)
    actor.made = {"checkpoints/two/b": b"later", "out/model.onnx": b"eleven byte", "out/f/r.json": b""}
    attempt.run()
    assert actor.sent == {"in/m.onnx": b"model", "in/d.npz": b"", "checkpoints/one/a": b"earlier"}
    assert [call[2] for call in actor.asked("begin")] == [task]
    assert (task.out / "model.onnx").read_bytes() == b"eleven byte"
    assert (task.out / "f" / "r.json").read_bytes() == b""
    assert (task.checkpoints / "two" / "b").read_bytes() == b"later"
    assert {path.name for path in task.scratch.iterdir()} == {
        "in", "checkpoints", "elsewhere", "out", task.messages.name
    }  # fmt: skip
    assert not (task.out / "old").exists()
    begun, step, kept, (_, outcome) = _told(task)
    assert (begun, step, kept) == (("begun", "job-2"), ("progress", STEP), ("checkpoint", "two"))
    assert outcome["state"] == "succeeded"
    assert actor.killed
    assert {call[1] for call in actor.calls} == {2}
    assert cluster.patience == {90.0}
    placed = cluster.placed[0]
    assert placed["given"] == (2, {"quantize": "a:b"}, 2**30, 90.0)
    assert (placed["num_cpus"], placed["num_gpus"], placed["memory"]) == (1.5, 1, 2**30)
    assert (placed["lifetime"], placed["max_restarts"], placed["max_task_retries"]) == ("detached", 0, 0)


@pytest.mark.parametrize("way", ["out", "back"])
def test_a_few_pieces_of_a_file_travel_at_a_time(
    way: str, attempt: Any, cluster: Any, ray_attempt: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_attempt, "_PIECE", 2)
    actor = cluster.actor(DONE)
    if way == "out":
        task.model.write_bytes(b"0123456789")
    else:
        actor.made["out/model.onnx"] = b"0123456789"
    attempt.run()
    assert cluster.most == 3
    if way == "out":
        assert actor.sent["in/m.onnx"] == b"0123456789"
    else:
        assert (task.out / "model.onnx").read_bytes() == b"0123456789"
        assert [call[3] for call in actor.asked("read")] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("gpus", [0, 1])
def test_it_gets_the_gpu_it_is_to_have(
    gpus: int, ray_attempt: Any, cluster: Any, task: Task, attempt: Any
) -> None:
    cluster.actor(DONE)
    ray_attempt.Attempt(task, gpus, attempt._terms).run()
    assert cluster.placed[0]["num_gpus"] == gpus


def test_each_line_is_told_once(attempt: Any, cluster: Any, task: Task) -> None:
    actor = cluster.actor(("progress", STEP))
    cluster.on_sleep = lambda: actor.lines.append(DONE)
    attempt.run()
    assert [kind for kind, _ in _told(task)] == ["begun", "progress", "outcome"]


def test_nothing_is_fetched_of_what_failed(attempt: Any, cluster: Any, task: Task) -> None:
    actor = cluster.actor(FAILED)
    actor.made["out/model.onnx"] = b"half"
    attempt.run()
    assert _error(task)["code"] == "spec"
    assert not task.out.exists()
    assert actor.killed


def test_a_file_that_changes_while_it_is_fetched_is_not_taken(attempt: Any, cluster: Any, task: Task) -> None:
    actor = cluster.actor(DONE)
    actor.made["out/model.onnx"] = b"whole"
    actor.instead["read"] = lambda *_: b"who"
    attempt.run()
    assert "model.onnx changed while it was fetched" in _error(task)["message"]
    assert _error(task)["retryable"]
    assert not task.out.exists()


def test_who_waits_for_a_place_says_so_once_and_can_be_stopped(
    attempt: Any, cluster: Any, task: Task
) -> None:
    actor = cluster.actor(DONE)
    cluster.waits = 40
    attempt.run()
    assert [kind for kind, _ in _told(task)] == ["begun", "outcome"]  # 5 s are no wait to speak of
    cluster.waits, actor = 200, cluster.actor()
    cluster.on_sleep = lambda: attempt.stop.set() if cluster.waits < 20 else None
    task.messages.unlink()
    attempt.run()
    (waits, said), (_, outcome) = _told(task)
    assert (waits, said["message"]) == ("waits", "waiting for room in the cluster")
    assert outcome["state"] == "canceled"
    assert cluster.waits > 0
    assert actor.killed
    assert not actor.sent


def test_a_stop_ends_the_sending(attempt: Any, cluster: Any, task: Task) -> None:
    actor = cluster.actor()
    attempt.stop.set()
    attempt.run()
    assert _told(task) == [
        ("outcome", {"state": "canceled", "error": None, "summary": None, "with_less": False})
    ]
    assert actor.killed
    assert not actor.asked("receive", "begin")


@pytest.mark.parametrize("obeys", [True, False])
def test_a_stop_is_asked_once_and_forced_after_ten_seconds(
    obeys: bool, attempt: Any, cluster: Any, task: Task
) -> None:
    actor, started = cluster.actor(), cluster.now
    cluster.on_sleep = attempt.stop.set
    if obeys:
        actor.instead["cancel"] = lambda: actor.lines.append(("outcome", {"state": "canceled"}))
    attempt.run()
    assert _told(task)[-1][1]["state"] == "canceled"
    assert len(actor.asked("cancel")) == 1
    assert actor.killed
    assert cluster.now - started < 1 if obeys else 10 < cluster.now - started < 11


def test_whom_a_later_attempt_took_over_is_left_alone(
    attempt: Any, cluster: Any, ray_attempt: Any, task: Task
) -> None:
    actor = cluster.actor()

    def fenced(*_: Any) -> None:
        raise ray_attempt.FencedError("taken over")

    actor.instead["look"] = fenced
    attempt.run()
    assert _told(task)[-1][1]["state"] == "canceled"
    assert not actor.killed


@pytest.mark.parametrize(
    ("error", "code", "words", "with_less"),
    [
        ("ActorDiedError", "worker_lost", "it, or its machine, ended without a word", False),
        ("GetTimeoutError", "worker_lost", "it did not answer for 90 s", False),
        ("ActorUnavailableError", "worker_lost", "it could not be reached any more", False),
        ("OutOfMemoryError", "out_of_memory", "Ray ended it: what Ray says", True),
        ("OSError", "storage", "On a machine of the cluster", False),
        ("KeyError", "internal", "The cluster could not do this work: 'odd'", False),
    ],
)
def test_how_it_was_lost_is_told(
    error: str,
    code: str,
    words: str,
    with_less: bool,
    attempt: Any,
    cluster: Any,
    task: Task,
) -> None:
    actor = cluster.actor()
    actor.instead["look"] = _raise(OTHERS.get(error) or cluster.error(error))
    attempt.run()
    found = _error(task)
    assert (found["code"], _told(task)[-1][1]["with_less"]) == (code, with_less)
    assert words in found["message"]
    assert actor.killed


@pytest.mark.parametrize("error", ["ActorDiedError", "OutOfMemoryError"])
def test_whoever_is_lost_after_a_stop_was_canceled(
    error: str, attempt: Any, cluster: Any, task: Task
) -> None:
    actor = cluster.actor()
    cluster.on_sleep = lambda: (
        attempt.stop.set(),
        actor.instead.update(look=_raise(OTHERS.get(error) or cluster.error(error))),
    )
    attempt.run()
    assert _told(task)[-1][1] == {"state": "canceled", "error": None, "summary": None, "with_less": False}


def test_a_way_that_comes_back_is_gone_on_with(attempt: Any, cluster: Any, task: Task) -> None:
    actor, started = cluster.actor(DONE), cluster.now
    actor.instead["look"] = _raise(cluster.error("ActorUnavailableError"))
    cluster.on_sleep = lambda: actor.instead.clear() if cluster.now - started > 80 else None
    attempt.run()
    assert _told(task)[-1][1]["state"] == "succeeded"
    assert len(cluster.placed) == 1


def test_a_way_that_stays_away_is_given_up_after_the_silence(attempt: Any, cluster: Any, task: Task) -> None:
    actor, started = cluster.actor(), cluster.now
    actor.instead["look"] = _raise(cluster.error("ActorUnavailableError"))
    attempt.run()
    assert _error(task)["code"] == "worker_lost"
    assert 90 < cluster.now - started < 91
    assert len(actor.asked("look")) < 1000


def test_the_process_ends_where_the_way_to_the_cluster_is_broken(
    attempt: Any, cluster: Any, ray_attempt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise SystemExit

    monkeypatch.setattr(os, "_exit", leave)
    sys.modules["ray"].util.list_named_actors = _raise(cluster.error("RayError"))  # type: ignore[attr-defined]
    with pytest.raises(SystemExit):
        attempt.run()
    assert codes == [ray_attempt.BROKEN] == [3]


def test_another_version_is_refused(attempt: Any, cluster: Any, task: Task) -> None:
    actor = cluster.actor()
    actor.instead["ready"] = lambda: "0.0.0"
    attempt.run()
    assert _error(task)["code"] == "cluster"
    assert f"the cluster runs Bitwright 0.0.0, the service {__version__}" in _error(task)["message"]
    assert actor.killed
    assert not actor.sent


@pytest.mark.parametrize("step", ["ready", "receive", "begin"])
def test_what_was_lost_before_it_began_is_placed_anew(
    step: str, attempt: Any, cluster: Any, task: Task
) -> None:
    lost, next_one = cluster.actor(), cluster.actor(DONE)
    lost.instead[step] = _raise(cluster.error("ActorDiedError"))
    cluster.lingers = 3  # its name is free a little later
    attempt.run()
    assert _told(task)[-1][1]["state"] == "succeeded"
    assert lost.killed
    assert next_one.sent.keys() == {"in/m.onnx", "in/d.npz"}
    assert len(cluster.placed) == 2


def test_it_is_placed_five_times_at_most(attempt: Any, cluster: Any, task: Task) -> None:
    for _ in range(6):
        cluster.actor().instead["begin"] = _raise(cluster.error("ActorDiedError"))
    attempt.run()
    assert _error(task)["code"] == "worker_lost"
    assert len(cluster.placed) == 5


def test_it_is_placed_no_more_after_a_stop(attempt: Any, cluster: Any, task: Task) -> None:
    actor = cluster.actor()

    def begin(_: Task) -> None:
        attempt.stop.set()
        raise cluster.error("ActorDiedError")

    actor.instead["begin"] = begin
    attempt.run()
    assert _told(task)[-1][1]["state"] == "canceled"
    assert len(cluster.placed) == 1


def test_an_earlier_attempt_that_works_is_gone_on_with_and_others_are_ended(
    attempt: Any, cluster: Any, task: Task
) -> None:
    names = "job-0", "job-1", "job-2", "job-9", "jobs-1"
    cluster.actors = {name: cluster.left(("progress", STEP), DONE) for name in names}
    cluster.actors["job-0"].instead["take_over"] = lambda: False
    cluster.actors["job-9"].instead["take_over"] = _raise(AssertionError)  # one is enough
    attempt.run()
    assert [kind for kind, _ in _told(task)] == ["begun", "progress", "outcome"]
    assert _told(task)[0] == ("begun", "job-1")
    assert not cluster.placed
    assert {name: actor.killed for name, actor in cluster.actors.items()} == dict.fromkeys(names, True) | {
        "jobs-1": False
    }
    assert [name for name, actor in cluster.actors.items() if actor.asked("take_over")] == ["job-0", "job-1"]
    assert cluster.patience == {5.0, 90.0}


def test_an_actor_that_was_placed_without_a_word_of_it_is_ended(
    attempt: Any, cluster: Any, task: Task
) -> None:
    old, new = cluster.left(DONE), cluster.actor(DONE)
    cluster.actors["job-2"] = old  # its bridge ended before it wrote that it had begun
    attempt.run()
    assert old.killed
    assert not old.calls
    assert new.asked("begin")


def test_an_earlier_attempt_that_does_not_answer_is_ended(attempt: Any, cluster: Any, task: Task) -> None:
    old, new = cluster.left(), cluster.actor(DONE)
    cluster.actors["job-1"] = old
    cluster.lingers, started = 1000, cluster.now
    old.instead["take_over"] = _raise(cluster.error("GetTimeoutError"))
    attempt.run()
    assert _told(task)[0] == ("begun", "job-2")
    assert old.killed
    assert new.asked("begin")
    assert 5 <= cluster.now - started < 6  # nobody waits for ever until a name is free


def test_what_a_bridge_that_is_gone_had_begun_is_followed_from_where_it_was(
    attempt: Any, cluster: Any, task: Task
) -> None:
    two = {**STEP, "fraction": 0.75}
    said = [{"begun": "job-1"}, {"progress": STEP}, {"checkpoint": "one"}]
    task.messages.write_text("".join(json.dumps(line) + "\n" for line in said) + '{"progr', encoding="utf-8")
    actor = cluster.left(("progress", STEP), ("checkpoint", "one"), ("progress", two), DONE)
    cluster.actors = {"job-1": actor, "job-2": cluster.left()}
    attempt.run()
    assert _told(task)[:4] == [pair for line in said for pair in line.items()] + [("progress", two)]
    assert _told(task)[-1][1]["state"] == "succeeded"
    assert actor.asked("look")[0] == ("look", 2, 2)
    assert not actor.asked("files", "take_over", "begin") or [c[2] for c in actor.asked("files")] == ["out"]


def test_what_ended_while_nobody_followed_is_lost(
    attempt: Any, cluster: Any, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    task.messages.write_text('{"begun": "job-2"}\n', encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        attempt.run()
    assert _error(task)["code"] == "worker_lost"
    assert "nobody followed it when it ended" in caplog.text
    assert not cluster.placed
