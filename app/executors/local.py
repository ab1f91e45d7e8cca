"""Runs tasks on this machine: one process per device, a fresh one for every job."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from pebble import ProcessExpired

from app.executors import failures, worker
from app.executors.killed_for_memory import killed_for_memory
from app.executors.messages import Messages
from app.executors.pool import WorkerPool, lost
from app.executors.protocol import Outcome, Task, Ticket, Update
from app.job import kind_of
from quant_core.spec import JobKind


@dataclass
class LocalTicket:
    """A task under way on this machine.

    Attributes:
        task: The task.
        device: Where it runs.
        future: What the pool will give.
        heard: What its process told.
        cancelled: Whether it was told to stop.
        killed_before: How many processes had been ended for lack of memory when it began.
        retried: Whether it was handed to a second pool, because the first broke before the task began.
    """

    task: Task
    device: str
    future: Future[Any]
    heard: Messages
    killed_before: int
    cancelled: bool = False
    retried: bool = False


class LocalExecutor:
    """One pool of one process for each device."""

    def __init__(self, devices: Sequence[str], engines: Mapping[JobKind, str], *, memory: int = 0) -> None:
        self._engines = engines
        preload = engines["quantize"].partition(":")[0]
        self._pools = {
            device: WorkerPool(device, workers=1, tasks_per_worker=1, preload=preload, memory=memory)
            for device in devices
        }

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device, busy or not."""
        return tuple(self._pools)

    @property
    def fault(self) -> None:
        """Nothing keeps tasks from this machine's own processes."""
        return

    def start(self) -> None:
        """Start a process for each device, so that the first job finds the engine loaded."""
        for pool in self._pools.values():
            pool.start()

    def capacity(self, busy: int) -> int:
        """Tell how many more tasks would find a place at once.

        Args:
            busy: How many are under way.

        Returns:
            The number.
        """
        return len(self._pools) - busy

    def submit(self, task: Task, device: str) -> LocalTicket:
        """Hand a task to the device's process.

        Args:
            task: What to run.
            device: Where.

        Returns:
            What to ask about it with.
        """
        before = killed_for_memory()
        return LocalTicket(task, device, self._schedule(task, device), Messages(task.messages), before)

    def poll(self, ticket: Ticket) -> Update:
        """Read what the worker wrote since the last look.

        Args:
            ticket: What `submit` gave.

        Returns:
            What is new.
        """
        ticket = _own(ticket)
        ended = self._ended(ticket)
        ticket.heard.look()
        steps, checkpoints = ticket.heard.hand_on()
        return Update(steps, self._outcome(ticket) if ended else None, checkpoints)

    def cancel(self, ticket: Ticket) -> None:
        """Kill the task's process, and it alone.

        Args:
            ticket: What `submit` gave.
        """
        ticket = _own(ticket)
        ticket.cancelled = True
        ticket.future.cancel()
        ticket.heard.look()
        # The pool asks first and kills after seconds; long calls into C do not hear the question.
        if ticket.heard.pid is not None and not wait([ticket.future], timeout=0).done:
            with contextlib.suppress(ProcessLookupError):
                os.kill(ticket.heard.pid, signal.SIGKILL)

    def close(self) -> None:
        """End every process."""
        for pool in self._pools.values():
            pool.close()

    def _schedule(self, task: Task, device: str) -> Future[Any]:
        return self._pools[device].schedule(worker.run, task, self._engines[kind_of(task.spec)])

    def _ended(self, ticket: LocalTicket) -> bool:
        # `future.done()` is true as soon as it is cancelled; `wait` only once the pool has let go of the process.
        if not wait([ticket.future], timeout=0).done:
            return False
        broken = not ticket.cancelled and isinstance(ticket.future.exception(), BrokenProcessPool)
        if broken and not ticket.retried and not ticket.task.messages.exists():
            ticket.future = self._schedule(ticket.task, ticket.device)
            ticket.retried = True
            return False
        ticket.heard.look()
        return ticket.heard.said is not None or ticket.heard.pid is None or not _is_alive(ticket.heard.pid)

    def _outcome(self, ticket: LocalTicket) -> Outcome:
        if ticket.heard.said is not None:
            return ticket.heard.said
        if ticket.cancelled:
            return Outcome(state="canceled")
        error = ticket.future.exception()
        if isinstance(error, BrokenProcessPool) and ticket.heard.pid is not None:
            code = self._pools[ticket.device].exit_code(ticket.heard.pid)
            error = error if code is None else ProcessExpired(str(error), code=code, pid=ticket.heard.pid)
        killed = isinstance(error, ProcessExpired) and error.exitcode == -signal.SIGKILL
        if killed and killed_for_memory() > ticket.killed_before:
            told = failures.out_of_memory("The system ended its process, for the machine had no more.")
            return Outcome(state="failed", error=told, with_less=True)
        return Outcome(state="failed", error=lost(error or RuntimeError("no outcome")))


def _own(ticket: Ticket) -> LocalTicket:
    if not isinstance(ticket, LocalTicket):
        raise TypeError("this ticket belongs to another executor")
    return ticket


def _is_alive(pid: int) -> bool:
    # Asked among our own children: by now the number alone may belong to a stranger.
    return any(process.pid == pid for process in multiprocessing.active_children())
