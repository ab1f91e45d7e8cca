"""Follows one attempt on a Ray cluster: places an actor, sends it the files, and writes down what it says."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import ray
from ray import exceptions

from app.executors import failures
from app.executors.messages import say
from app.executors.protocol import Outcome, Task
from app.executors.ray_actor import AttemptActor, FencedError
from quant_core.spec import JobFailure, JobKind, Progress
from quant_core.version import __version__

_log = logging.getLogger("bitwright.ray")

NAMESPACE = "bitwright"

BROKEN = 3
"""Exit code of a bridge that can do no more."""

_PIECE = 8 * 2**20
"""Bytes of a file that travel at once; Ray keeps them in shared memory, not in a process."""

_AHEAD = 3
"""Pieces on their way at a time."""

_LOOK_SECONDS = 0.1
_PLACE_SECONDS = 5.0
_CANCEL_SECONDS = 10.0
_PLACES = 5
"""How often an attempt is placed that was lost before it began."""

_OWN = frozenset({"progress", "checkpoint"})


@dataclass(frozen=True)
class Terms:
    """What attempts are given on the cluster.

    Attributes:
        engines: Dotted names of the engine's entries.
        memory: The most bytes that a job on a CPU may take; 0 for no limit.
        cpus: Processors of each job.
        silence: Seconds without a word from an actor after which it is given up; likewise from its service.
    """

    engines: dict[JobKind, str]
    memory: int
    cpus: float
    silence: float


class LostError(Exception):
    """The actor is gone.

    Attributes:
        told: What users are told of it.
    """

    def __init__(self, detail: str, told: str = "it, or its machine, ended without a word") -> None:
        super().__init__(detail)
        self.told = told


class ShortageError(Exception):
    """Ray ended the actor because its machine ran out of memory."""


class UnreachableError(LostError):
    """The actor may be gone, or only the way to it."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The attempt was told to stop."""


class Attempt(threading.Thread):
    """A thread that follows one attempt to its end; it tells everything through the attempt's file of messages."""

    def __init__(self, task: Task, gpus: int, terms: Terms) -> None:
        """Set it up.

        Args:
            task: The task, whose files are on this machine.
            gpus: How many GPUs it is given, 0 or 1.
            terms: What else.
        """
        super().__init__(name=f"{task.job_id}-{task.attempt}", daemon=True)
        self.stop = threading.Event()
        self._task = task
        self._who = task.job_id, task.attempt
        self._gpus = gpus
        self._terms = terms

    def run(self) -> None:
        """Follow the attempt."""
        with _mended(self._task.messages).open("a", buffering=1, encoding="utf-8") as messages:
            say(messages, "outcome", self._outcome(messages).model_dump(mode="json"))

    def _outcome(self, messages: TextIO) -> Outcome:
        """How it ended; an attempt that was told to stop is canceled, however its actor went away."""
        with_less = False
        try:
            return self._follow(messages)
        except (Stopped, FencedError):
            return Outcome(state="canceled")
        except LostError as error:
            _log.warning("job %s, attempt %d: %s", *self._who, " ".join(str(error).split()))
            told = failures.lost(f"The process on the cluster that did this work was lost: {error.told}.")
        except ShortageError as error:
            told, with_less = failures.out_of_memory(f"Ray ended it: {error}"), True
        except exceptions.RayError:
            # Of another cluster at the same address, say: this process must start anew.
            _log.exception("job %s, attempt %d: the way to the cluster is broken", *self._who)
            os._exit(BROKEN)
        except Exception as error:
            _log.exception("job %s, attempt %d", *self._who)
            return Outcome(state="failed", error=_fault(error))
        if self.stop.is_set():
            return Outcome(state="canceled")
        return Outcome(state="failed", error=told, with_less=with_less)

    def _follow(self, messages: TextIO) -> Outcome:
        name, seen = _earlier(self._task.messages)
        if name is not None:  # by a bridge that is gone
            actor = _found(name)
            if actor is None:
                raise LostError("nobody followed it when it ended")
        else:
            name, actor = self._taken_over() or (self.name, self._placed(messages))
            say(messages, "begun", name)
        try:
            outcome = self._listen(actor, seen, messages)
        except FencedError:  # it works for a later attempt now
            raise
        except BaseException:
            ray.kill(actor, no_restart=True)
            raise
        ray.kill(actor, no_restart=True)
        return outcome

    def _taken_over(self) -> tuple[str, Any] | None:
        """An actor of an earlier attempt that can go on for this one; others are ended."""
        going = None
        for name in ray.util.list_named_actors():
            actor = _found(name) if name.startswith(f"{self._task.job_id}-") else None
            if actor is None:
                continue
            if going is None and name != self.name and self._goes_on(actor):
                _log.info("job %s, attempt %d, goes on with %s", *self._who, name)
                going = name, actor
            else:
                _end(name, actor)
        return going

    def _goes_on(self, actor: Any) -> bool:
        answer = actor.take_over.remote(self._task.attempt)
        try:
            return bool(ray.get(answer, timeout=_PLACE_SECONDS))
        except exceptions.RayError:
            return False

    def _placed(self, messages: TextIO) -> Any:
        for tried in range(1, _PLACES + 1):
            actor = self._made()
            try:
                version = self._wait_for_a_place(actor, messages)
                if version != __version__:
                    raise VersionsDifferError(version)
                self._send(actor)
                self._ask(actor.begin, self._task)
            except LostError as error:
                # Nothing was begun: its machine may have been dead without Ray's knowing.
                _end(self.name, actor)
                if tried == _PLACES or self.stop.is_set():
                    raise
                _log.warning("job %s, attempt %d: placed anew: %s", *self._who, " ".join(str(error).split()))
            except BaseException:
                ray.kill(actor, no_restart=True)
                raise
            else:
                return actor
        raise AssertionError

    def _made(self) -> Any:
        terms = self._terms
        return (
            ray.remote(AttemptActor)
            .options(
                name=self.name,
                lifetime="detached",
                num_cpus=terms.cpus,
                num_gpus=self._gpus,
                memory=terms.memory or None,
                max_restarts=0,
                max_task_retries=0,
            )
            .remote(self._task.attempt, terms.engines, terms.memory, terms.silence)
        )

    def _wait_for_a_place(self, actor: Any, messages: TextIO) -> str:
        answer, started, told = actor.ready.remote(self._task.attempt), time.monotonic(), False
        while not ray.wait([answer], timeout=_LOOK_SECONDS)[0]:
            if self.stop.is_set():
                raise Stopped
            if not told and time.monotonic() - started > _PLACE_SECONDS:
                waiting = Progress(stage="ingest", fraction=0.0, message="waiting for room in the cluster")
                say(messages, "waits", waiting.model_dump(mode="json"))
                told = True
        version: str = self._get(answer)
        return version

    def _send(self, actor: Any) -> None:
        scratch, on_their_way = self._task.scratch, deque[Any]()
        files = (
            path for part in ("in", "checkpoints") for path in (scratch / part).rglob("*") if path.is_file()
        )
        for file in sorted(files):
            name = file.relative_to(scratch).as_posix()
            for piece in _pieces(file):
                if self.stop.is_set():
                    raise Stopped
                on_their_way.append(actor.receive.remote(self._task.attempt, name, ray.put(piece)))
                if len(on_their_way) >= _AHEAD:
                    self._get(on_their_way.popleft())
        for answer in on_their_way:
            self._get(answer)

    def _listen(self, actor: Any, seen: int, messages: TextIO) -> Outcome:
        canceled_at: float | None = None
        while True:
            if self.stop.is_set() and canceled_at is None:
                canceled_at = time.monotonic()
                self._ask(actor.cancel)
            for kind, content in self._ask(actor.look, seen):
                seen += 1
                if kind == "outcome":
                    outcome = Outcome.model_validate(content)
                    if outcome.state == "succeeded":
                        self._fetch(actor, "out", self._task.out)
                    return outcome
                if kind == "checkpoint":
                    self._fetch(actor, f"checkpoints/{content}", self._task.checkpoints / str(content))
                say(messages, kind, content)
            if canceled_at is not None and time.monotonic() - canceled_at > _CANCEL_SECONDS:
                raise Stopped  # it is killed with everything it started
            time.sleep(_LOOK_SECONDS)

    def _fetch(self, actor: Any, name: str, folder: Path) -> None:
        """Copy a folder of the actor's; it is here whole or not at all."""
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for file, size in self._ask(actor.files, name):
            target = part / file
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as written:
                for piece in self._read(actor, f"{name}/{file}", size):
                    written.write(piece)
            if target.stat().st_size != size:
                raise OSError(f"{file} changed while it was fetched")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)

    def _read(self, actor: Any, name: str, size: int) -> Iterator[bytes]:
        on_their_way = deque[Any]()
        for offset in range(0, size, _PIECE):
            on_their_way.append(actor.read.remote(self._task.attempt, name, offset, _PIECE))
            if len(on_their_way) == _AHEAD:
                yield self._get(on_their_way.popleft())
        for answer in on_their_way:
            yield self._get(answer)

    def _ask(self, method: Any, *args: object) -> Any:
        """Call the actor; a connection that is broken may come back until the silence has lasted too long."""
        deadline = time.monotonic() + self._terms.silence
        while True:
            try:
                return self._get(method.remote(self._task.attempt, *args))
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOOK_SECONDS)

    def _get(self, answer: Any) -> Any:
        try:
            return ray.get(answer, timeout=self._terms.silence)
        except exceptions.RayTaskError as error:
            raise error.cause from None
        except exceptions.ActorUnavailableError as error:
            raise UnreachableError(str(error), "it could not be reached any more") from error
        except exceptions.GetTimeoutError as error:
            raise LostError(str(error), f"it did not answer for {self._terms.silence:g} s") from error
        except exceptions.OutOfMemoryError as error:
            raise ShortageError(str(error)) from error
        except exceptions.RayError as error:
            raise LostError(str(error)) from error


def _fault(error: Exception) -> JobFailure:
    if failures.is_disk_full(error):
        return failures.disk_full("On a machine of the cluster, or between it and the service.")
    return JobFailure(
        code=getattr(error, "code", "internal"),
        message=f"The cluster could not do this work: {error}",
        remedy="Look in the service's log and in those of Ray; report it if it is a fault of ours.",
        retryable=True,
    )


def _found(name: str) -> Any:
    try:
        return ray.get_actor(name)
    except ValueError:
        return None


def _end(name: str, actor: Any) -> None:
    ray.kill(actor, no_restart=True)
    deadline = time.monotonic() + _PLACE_SECONDS
    while _found(name) is not None and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


class VersionsDifferError(Exception):
    """The cluster runs another version of Bitwright."""

    code = "cluster"

    def __init__(self, version: str) -> None:
        super().__init__(f"the cluster runs Bitwright {version}, the service {__version__}; install the same")


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        piece = content.read(_PIECE)
        yield piece  # also of an empty file, so that it is made
        while piece := content.read(_PIECE):
            yield piece


def _mended(messages: Path) -> Path:
    # Who wrote here before may have been killed in the middle of a line.
    if messages.exists():
        whole = messages.read_bytes().rpartition(b"\n")
        messages.write_bytes(whole[0] + whole[1])
    return messages


def _earlier(messages: Path) -> tuple[str | None, int]:
    """The actor that this attempt was begun on, and how many of its lines were written down."""
    lines = [json.loads(line) for line in messages.read_text(encoding="utf-8").splitlines()]
    begun = [line["begun"] for line in lines if "begun" in line]
    return (begun[-1] if begun else None), sum(not _OWN.isdisjoint(line) for line in lines)
