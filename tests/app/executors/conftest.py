"""A stand-in for Ray, whose answers tests choose, and the modules that speak to it, loaded over it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from app.executors.protocol import Task
from quant_core.version import __version__


class RayError(Exception):
    """Below are those of Ray's errors that are told apart, each a kind of what it is a kind of there."""


class RayTaskError(RayError):
    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


class ActorUnavailableError(RayError): ...


class GetTimeoutError(RayError, TimeoutError): ...


class OutOfMemoryError(RayError): ...


class ActorDiedError(RayError): ...


class Actor:
    """An actor that keeps the files it is sent and says the lines of the test; every call is noted."""

    def __init__(self, cluster: Cluster, lines: list[tuple[str, object]]) -> None:
        self.cluster, self.lines = cluster, lines
        self.calls: list[tuple[Any, ...]] = []
        self.sent: dict[str, bytes] = {}
        self.made: dict[str, bytes] = {}
        self.instead: dict[str, Callable[..., Any]] = {}
        self.killed = False

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *args: self._answer(name, *args))

    def _answer(self, name: str, attempt: int, *args: Any) -> tuple[Any, BaseException | None]:
        self.calls.append((name, attempt, *args))
        self.cluster.due += 1
        self.cluster.most = max(self.cluster.most, self.cluster.due)
        try:
            if self.killed:
                raise ActorDiedError("dead")
            return self.instead.get(name, getattr(Actor, f"_{name}").__get__(self))(*args), None
        except RayError as error:
            return None, error
        except Exception as error:
            return None, RayTaskError(error)

    def _ready(self) -> str:
        return __version__

    def _take_over(self) -> bool:
        return True

    def _receive(self, name: str, piece: bytes) -> None:
        self.sent[name] = self.sent.get(name, b"") + piece

    def _begin(self, task: Task) -> None: ...

    def _cancel(self) -> None: ...

    def _look(self, seen: int) -> list[tuple[str, object]]:
        return self.lines[seen:]

    def _files(self, folder: str) -> list[tuple[str, int]]:
        return [
            (name.removeprefix(f"{folder}/"), len(content))
            for name, content in self.made.items()
            if name.startswith(f"{folder}/")
        ]

    def _read(self, name: str, offset: int, size: int) -> bytes:
        return self.made[name][offset : offset + size]

    def asked(self, *names: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] in names]


class Cluster:
    """What `ray` is to the module under test, and a clock that hardly moves but by its pauses."""

    exceptions = SimpleNamespace(
        RayError=RayError,
        RayTaskError=RayTaskError,
        ActorUnavailableError=ActorUnavailableError,
        GetTimeoutError=GetTimeoutError,
        OutOfMemoryError=OutOfMemoryError,
        ActorDiedError=ActorDiedError,
    )

    def __init__(self) -> None:
        self.now, self.waits, self.lingers = 1000.0, 0, 0
        self.due = self.most = 0  # answers that nobody fetched yet
        self.actors: dict[str, Actor] = {}
        self.placed: list[dict[str, Any]] = []
        self.coming: list[Actor] = []
        self.patience: set[float] = set()
        self.on_sleep: Callable[[], object] = lambda: None
        self.util = SimpleNamespace(list_named_actors=lambda: list(self.actors))

    def actor(self, *lines: tuple[str, object]) -> Actor:
        """The next one that is placed."""
        self.coming.append(self.left(*lines))
        return self.coming[-1]

    def error(self, kind: str) -> RayError:
        """One of Ray's errors by its name."""
        found: RayError = vars(self.exceptions)[kind]("what Ray says")
        return found

    def left(self, *lines: tuple[str, object]) -> Actor:
        """One that an earlier attempt may have left."""
        return Actor(self, list(lines))

    def remote(self, _: type) -> Any:
        def options(**asked: Any) -> Any:
            def place(*given: Any) -> Actor:
                actor = self.actors[asked["name"]] = self.coming.pop(0)
                self.placed.append({**asked, "given": given})
                return actor

            return SimpleNamespace(remote=place)

        return SimpleNamespace(options=options)

    def get_actor(self, name: str) -> Actor:
        actor = self.actors.get(name)
        if actor is not None and actor.killed:
            self.lingers -= 1
        if actor is None or (actor.killed and self.lingers < 0):
            raise ValueError(name)
        return actor

    def kill(self, actor: Actor, *, no_restart: bool) -> None:
        assert no_restart
        actor.killed = True

    def put(self, piece: bytes) -> bytes:
        return piece

    def get(self, answer: tuple[Any, BaseException | None], *, timeout: float) -> Any:
        self.patience.add(timeout)
        self.due -= 1
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def wait(self, answers: list[Any], *, timeout: float) -> tuple[list[Any], list[Any]]:
        self.waits -= 1
        if self.waits < 0:
            return answers, []
        self.sleep(timeout)
        return [], answers

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 2000, "it waits for ever"
        self.on_sleep()


def _load(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    ray = ModuleType("ray")
    for name in ("exceptions", "get", "get_actor", "kill", "put", "remote", "util", "wait"):
        setattr(ray, name, getattr(made, name))
    monkeypatch.setitem(sys.modules, "ray", ray)
    return made


@pytest.fixture
def ray_attempt(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module under test, loaded for this test alone: elsewhere it speaks to Ray, or cannot be loaded."""
    for name in ("app.executors.ray_actor", "app.executors.ray_attempt"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    _load("app.executors.ray_actor", monkeypatch)
    loaded = _load("app.executors.ray_attempt", monkeypatch)
    monkeypatch.setattr(loaded, "time", cluster)
    return loaded
