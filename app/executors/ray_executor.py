"""Runs tasks on a Ray cluster. Ray itself is spoken to by a process apart, which may die without harm."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from app.executors.messages import Messages
from app.executors.protocol import Outcome, Task, Ticket, Update
from app.executors.ray_task import encode
from quant_core.errors import UserError
from quant_core.spec import JobFailure, JobKind

_log = logging.getLogger("bitwright.ray")

_AGAIN_SECONDS = 1.0
"""Until the next try to reach the cluster; twice as long after each that fails."""

_RARELY_SECONDS = 30.0

_UNSEEN_SECONDS = 3.0
"""How long a task that was just submitted may not show in what the cluster says is free."""

_FRESH_SECONDS = 5.0
"""How old what the cluster said may be for new tasks to be given to it."""

_AWAY_SECONDS = 10.0
"""How long a cluster may say nothing before it counts as away."""

_START_SECONDS = 60.0
"""How long a bridge may take to reach the cluster, or say nothing, before another takes its place."""

_TOLD_OFTEN = 5
"""A task that so many bridges could not bring to an end is lost."""

_CLOSE_SECONDS = 20.0


class NoRayError(UserError):
    """Ray is not installed."""

    code = "ray"


@dataclass(frozen=True)
class Cluster:
    """Where the cluster is, and what each job gets there.

    Attributes:
        address: Host and port of its head.
        token: What it is entered with.
        cpus: Processors of each job.
        memory: The most bytes that a job on a CPU may take; 0 for no limit.
        silence: Seconds without a word after which an attempt is given up.
    """

    address: str
    token: str
    cpus: float = 1.0
    memory: int = 0
    silence: float = 90.0


@dataclass
class RayTicket:
    """A task under way on the cluster.

    Attributes:
        task: The task.
        gpus: How many it is given.
        submitted: When, by the monotonic clock.
        heard: What was said of it.
        cancelled: Whether it was told to stop.
        told: How many bridges were told of it.
    """

    task: Task
    gpus: int
    submitted: float
    heard: Messages
    cancelled: bool = False
    told: int = 0

    @property
    def name(self) -> str:
        """What it is called on the cluster."""
        return f"{self.task.job_id}-{self.task.attempt}"


@dataclass
class _Room:
    gpus: int = 0
    cpus: int = 0


@dataclass
class _Bridge:
    """The process that speaks to Ray, and what it said last."""

    process: subprocess.Popen[str]
    total: _Room = field(default_factory=_Room)
    free: _Room = field(default_factory=_Room)
    heard: float | None = None

    def __post_init__(self) -> None:
        self.listener = threading.Thread(target=self.listen, name="bridge", daemon=True)
        self.listener.start()

    def listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                said = json.loads(line)
                self.total, self.free = _Room(**said["total"]), _Room(**said["free"])
                self.heard = time.monotonic()

    def tell(self, line: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(line) + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):  # it is gone; the next one is told everything anew
            return

    def end(self, seconds: float) -> None:
        """Wait for it, but not for ever."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.listener.join()


class RayExecutor:
    """One actor for each attempt, wherever the cluster has room."""

    def __init__(self, cluster: Cluster, devices: Sequence[str], engines: Mapping[JobKind, str]) -> None:
        """Set it up.

        Args:
            cluster: Where it is.
            devices: `("auto",)` for all that it has; otherwise one entry for each job at a time.
            engines: Dotted names of the engine's entries, to be found on every machine of the cluster.
        """
        self._cluster = cluster
        self._wanted = tuple(devices)
        self._engines = dict(engines)
        self._open: dict[str, RayTicket] = {}
        self._bridge: _Bridge | None = None
        self._started = float("-inf")
        self._again = _AGAIN_SECONDS
        self._reached = time.monotonic()
        self._closed = False

    @property
    def devices(self) -> tuple[str, ...]:
        """Every place for a job that the cluster had when it was last heard of."""
        if self._wanted != ("auto",):
            return self._wanted
        total = _Room() if self._bridge is None else self._bridge.total
        kind, count = ("cuda", total.gpus) if total.gpus else ("cpu", total.cpus)
        return tuple(f"{kind}/{number}" for number in range(count))

    @property
    def fault(self) -> str | None:
        """Whether the cluster is away, or has no machine for jobs."""
        bridge = self._bridge
        if bridge is None or bridge.heard is None or time.monotonic() - bridge.heard > _AWAY_SECONDS:
            return "The Ray cluster cannot be reached; jobs are taken and wait for it."
        if not self.devices:
            return "No machine of the Ray cluster has room for jobs; they are taken and wait for one."
        return None

    def capacity(self, busy: int) -> int:
        """Tell how many more tasks would find a place at once.

        Args:
            busy: How many of ours are under way.

        Returns:
            The number; other services may be faster, and then a task waits for its place.
        """
        bridge = self._now()
        moment = time.monotonic()
        if bridge is None or bridge.heard is None or moment - bridge.heard > _FRESH_SECONDS:
            return 0
        if self._wanted != ("auto",):
            return max(0, len(self._wanted) - busy)
        unseen = sum(moment - ticket.submitted < _UNSEEN_SECONDS for ticket in self._open.values())
        free = bridge.free.gpus if bridge.total.gpus else bridge.free.cpus
        return max(0, free - unseen)

    def start(self) -> None:
        """Reach out for the cluster.

        Raises:
            NoRayError: If Ray is not installed here.
        """
        if importlib.util.find_spec("ray") is None:
            raise NoRayError(
                "Ray is not installed.", remedy="In a clone: pip install '.[cluster]' -c constraints.txt"
            )
        self._now()

    def submit(self, task: Task, device: str) -> RayTicket:
        """Hand a task to the cluster.

        Args:
            task: What to run.
            device: A place of `devices`.

        Returns:
            What to ask about it with.
        """
        gpus = int(device.startswith("cuda"))
        ticket = RayTicket(task, gpus, time.monotonic(), Messages(task.messages))
        bridge = self._now()  # a new one is told of all that is open
        self._open[ticket.name] = ticket
        if bridge is not None:
            self._tell(bridge, ticket)
        return ticket

    def poll(self, ticket: Ticket) -> Update:
        """Read what the cluster said since the last look.

        Args:
            ticket: What `submit` gave.

        Returns:
            What is new.
        """
        ticket = _own(ticket)
        self._now()
        ticket.heard.look()
        steps, checkpoints = ticket.heard.hand_on()
        outcome = ticket.heard.said
        silent = time.monotonic() - max(self._reached, ticket.submitted)
        if outcome is None and (silent > self._cluster.silence or ticket.told > _TOLD_OFTEN):
            told = f"could not be reached for {min(silent, self._cluster.silence):.0f} s"
            if ticket.told > _TOLD_OFTEN:
                told = f"broke off {_TOLD_OFTEN} times"
            failed = Outcome(state="failed", error=_unreached(told))
            outcome = Outcome(state="canceled") if ticket.cancelled else failed
            if self._bridge is not None:  # should it come back, it must not write where nobody reads
                self._bridge.tell({"cancel": ticket.name})
        if outcome is not None:
            self._open.pop(ticket.name, None)
        return Update(steps, outcome, checkpoints)

    def cancel(self, ticket: Ticket) -> None:
        """Have a task's process killed.

        Args:
            ticket: What `submit` gave.
        """
        ticket = _own(ticket)
        ticket.cancelled = True
        bridge = self._now()
        if bridge is not None:
            bridge.tell({"cancel": ticket.name})

    def close(self) -> None:
        """End everything that this service started on the cluster."""
        self._closed = True
        bridge, self._bridge = self._bridge, None
        if bridge is None:
            return
        bridge.tell({"close": True})
        bridge.end(_CLOSE_SECONDS)

    def _now(self) -> _Bridge | None:
        """The bridge; a new one, told of everything that is open, where the last has died."""
        if self._bridge is not None and self._bridge.process.poll() is None:
            if time.monotonic() - (self._bridge.heard or self._started) > _START_SECONDS:
                self._bridge.process.kill()
            if self._bridge.heard is not None:
                self._reached = self._bridge.heard
                self._again = _AGAIN_SECONDS
            return self._bridge
        moment = time.monotonic()
        if self._closed or moment - self._started < self._again:
            return None
        if self._bridge is not None:
            self._bridge.end(0)
            _log.warning("the way to the cluster broke (exit code %s)", self._bridge.process.returncode)
            self._again = min(2 * self._again, _RARELY_SECONDS)
        self._started = moment
        self._bridge = self._built()
        for ticket in self._open.values():
            self._tell(self._bridge, ticket)
        return self._bridge

    def _built(self) -> _Bridge:
        cluster = self._cluster
        entry = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token, "RAY_USAGE_STATS_ENABLED": "0"}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "app.executors.ray_bridge"],
            env={**os.environ, **entry},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the service, which tells it to close
        )
        bridge = _Bridge(process)
        terms = {
            "engines": self._engines,
            "memory": cluster.memory,
            "cpus": cluster.cpus,
            "silence": cluster.silence,
        }
        bridge.tell({"address": cluster.address, "terms": terms})
        return bridge

    @staticmethod
    def _tell(bridge: _Bridge, ticket: RayTicket) -> None:
        ticket.told += 1
        bridge.tell({"submit": encode(ticket.task), "gpus": ticket.gpus})
        if ticket.cancelled:
            bridge.tell({"cancel": ticket.name})


def _own(ticket: Ticket) -> RayTicket:
    if not isinstance(ticket, RayTicket):
        raise TypeError("this ticket belongs to another executor")
    return ticket


def _unreached(how: str) -> JobFailure:
    return JobFailure(
        code="worker_lost",
        message=f"The cluster that did this work {how}.",
        remedy="Send it again when the cluster is back.",
        retryable=True,
    )
