"""What the service asks of a place that runs jobs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from quant_core.spec import JobFailure, JobSpec, JobState, JobSummary, Progress


@dataclass(frozen=True)
class Task:
    """One attempt at a job, complete: whoever runs it needs nothing else.

    Attributes:
        job_id: The job.
        attempt: The attempt.
        model: The model's file.
        data: The samples' file.
        spec: What was asked.
        scratch: A folder of this attempt alone, for messages and results.
        earlier: Tables of an ended job whose sensitivities are taken over.
        memory_share: How much of the usual memory its batches may take.
    """

    job_id: str
    attempt: int
    model: Path
    data: Path
    spec: JobSpec
    scratch: Path
    earlier: Path | None = None
    memory_share: float = 1.0

    @property
    def out(self) -> Path:
        """Where the results go."""
        return self.scratch / "out"

    @property
    def checkpoints(self) -> Path:
        """What earlier attempts left, and where this one puts what it leaves; one folder each."""
        return self.scratch / "checkpoints"

    @property
    def messages(self) -> Path:
        """Where the worker writes what it does, one JSON line at a time."""
        return self.scratch / "messages.jsonl"


class Outcome(BaseModel):
    """How an attempt ended.

    Attributes:
        state: `succeeded`, `failed` or `canceled`.
        error: Why it failed.
        summary: What came out.
        with_less: Whether it failed for lack of memory, and smaller batches may help.
    """

    model_config = ConfigDict(frozen=True)

    state: JobState
    error: JobFailure | None = None
    summary: JobSummary | None = None
    with_less: bool = False


@dataclass(frozen=True)
class Update:
    """What is new about a running attempt.

    Attributes:
        steps: What the worker said since the last look.
        checkpoints: What it has left since for its successor: folders in the task's `checkpoints`.
        outcome: How it ended, once it has: its process then no longer touches any file.
    """

    steps: tuple[Progress, ...]
    outcome: Outcome | None
    checkpoints: tuple[str, ...] = ()


class Ticket(Protocol):
    """Stands for a submitted task."""

    @property
    def task(self) -> Task:
        """The task."""
        ...


class Executor(Protocol):
    """Runs tasks in processes of their own. One thread calls all of its methods."""

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device, busy or not."""
        ...

    @property
    def fault(self) -> str | None:
        """Why no task can find a place for now, other than that all are taken; may be asked from any thread."""
        ...

    def start(self) -> None:
        """Start what is to be ready before the first task."""
        ...

    def capacity(self, busy: int) -> int:
        """Tell how many more tasks would find a place at once.

        Args:
            busy: How many of the caller's are under way.

        Returns:
            The number.
        """
        ...

    def submit(self, task: Task, device: str) -> Ticket:
        """Start a task.

        Args:
            task: What to run.
            device: Where; the caller gives a device one task at a time.

        Returns:
            What to ask about it with.
        """
        ...

    def poll(self, ticket: Ticket) -> Update:
        """Look what a task did since the last look; never waits.

        Args:
            ticket: What `submit` gave.

        Returns:
            What is new.
        """
        ...

    def cancel(self, ticket: Ticket) -> None:
        """Kill a task's process, whatever it is doing; `poll` tells when it is gone.

        Args:
            ticket: What `submit` gave.
        """
        ...

    def close(self) -> None:
        """End every process."""
        ...
