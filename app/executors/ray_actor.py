"""What runs on a machine of a Ray cluster: one attempt at a job, in a process that the actor starts and watches.

The actor has Ray's token and can reach the cluster, so users' models are opened in a child of it that has neither: the
same worker process as on one machine, with the same limits. Files come in and go out in pieces through the actor.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import ray

from app.environment import forget_secrets
from app.executors.local import LocalExecutor
from app.executors.protocol import Outcome, Task, Ticket
from quant_core.spec import JobKind
from quant_core.version import __version__

Line = tuple[str, object]
"""Kind and content of a message, as in an attempt's file of messages."""

_UNSEEN = """
import os, shutil, sys
if os.fork():
    os._exit(0)
os.setsid()
sys.stdin.read()
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


class FencedError(Exception):
    """A later attempt has taken this actor over."""


class AttemptActor:
    """One attempt at a job. Every call names the attempt that the caller speaks for; those of earlier ones are refused.

    It ends itself when nobody asked it anything for a while, and its files go with it, however it ends.
    """

    def __init__(self, attempt: int, engines: Mapping[JobKind, str], memory: int, silence: float) -> None:
        """Get ready for a task.

        Args:
            attempt: The attempt it is made for.
            engines: Dotted names of the engine's entries.
            memory: The most bytes of address space of a job on a CPU; 0 for no limit.
            silence: Seconds without a call after which it ends.
        """
        forget_secrets()
        # A spawned process runs its parent's program again, which here is Ray's.
        vars(sys.modules["__main__"]).pop("__file__", None)
        self._attempt = attempt
        self._folder = Path(tempfile.mkdtemp(prefix="bitwright-attempt-"))
        self._guard = _remove_in_the_end(self._folder)
        gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        self._device = f"cuda:{gpus[0]}" if gpus else "cpu"
        self._executor = LocalExecutor((self._device,), engines, memory=memory)
        self._executor.start()
        self._ticket: Ticket | None = None
        self._lines: list[Line] = []
        self._outcome: Outcome | None = None
        self._asked = time.monotonic()
        threading.Thread(target=self._watch, args=(silence,), daemon=True).start()

    def ready(self, attempt: int) -> str:
        """Tell that it is there.

        Args:
            attempt: Who asks.

        Returns:
            Version of Bitwright on this machine.
        """
        self._check(attempt)
        return __version__

    def take_over(self, attempt: int) -> bool:
        """Go on for a later attempt.

        Args:
            attempt: Who asks from now on.

        Returns:
            Whether there is something to go on with; if not, it should be ended.
        """
        self._check(attempt)
        self._attempt = attempt
        going = self._outcome is None or self._outcome.state == "succeeded"
        return self._ticket is not None and going

    def receive(self, attempt: int, name: str, piece: bytes) -> None:
        """Add a piece to a file of the task.

        Args:
            attempt: Who asks.
            name: The file, relative to the task's folder.
            piece: Its next bytes.
        """
        self._check(attempt)
        file = self._folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as written:
            written.write(piece)

    def begin(self, attempt: int, task: Task) -> None:
        """Start the engine on the task, whose files are there.

        Args:
            attempt: Who asks.
            task: The task, with the paths of the service.
        """
        self._check(attempt)

        def here(path: Path) -> Path:
            return self._folder / path.relative_to(task.scratch)

        moved = replace(
            task,
            model=here(task.model),
            data=here(task.data),
            earlier=None if task.earlier is None else here(task.earlier),
            scratch=self._folder,
        )
        self._ticket = self._executor.submit(moved, self._device)

    def look(self, attempt: int, seen: int) -> list[Line]:
        """Tell what the worker said.

        Args:
            attempt: Who asks.
            seen: How many lines were seen before.

        Returns:
            The lines since.
        """
        self._check(attempt)
        if self._ticket is not None and self._outcome is None:
            update = self._executor.poll(self._ticket)
            self._lines += [("progress", step.model_dump(mode="json")) for step in update.steps]
            self._lines += [("checkpoint", name) for name in update.checkpoints]
            if update.outcome is not None:
                self._outcome = update.outcome
                self._lines.append(("outcome", update.outcome.model_dump(mode="json")))
        return self._lines[seen:]

    def cancel(self, attempt: int) -> None:
        """Kill the worker; `look` tells when it is gone.

        Args:
            attempt: Who asks.
        """
        self._check(attempt)
        if self._ticket is not None:
            self._executor.cancel(self._ticket)

    def files(self, attempt: int, folder: str) -> list[tuple[str, int]]:
        """List files that the worker made.

        Args:
            attempt: Who asks.
            folder: Where, relative to the task's folder.

        Returns:
            Name in that folder, and bytes, of each.
        """
        self._check(attempt)
        top = self._folder / folder
        found = sorted(path for path in top.rglob("*") if path.is_file() and not path.is_symlink())
        return [(path.relative_to(top).as_posix(), path.stat().st_size) for path in found]

    def read(self, attempt: int, name: str, offset: int, size: int) -> bytes:
        """Read a piece of a file.

        Args:
            attempt: Who asks.
            name: The file, relative to the task's folder.
            offset: Where the piece starts, in bytes.
            size: How many bytes at most.

        Returns:
            The piece.
        """
        self._check(attempt)
        with (self._folder / name).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def _check(self, attempt: int) -> None:
        if attempt < self._attempt:
            raise FencedError(f"attempt {self._attempt} has taken over from {attempt}")
        self._asked = time.monotonic()

    def _watch(self, silence: float) -> None:
        while time.monotonic() - self._asked < silence:
            time.sleep(min(1.0, silence / 10))
        os._exit(1)  # the worker asked the kernel to end with this process


def _remove_in_the_end(folder: Path) -> subprocess.Popen[bytes]:
    # Whoever kills this process kills its children too; a grandchild waits for its end and cleans up.
    command = [sys.executable, "-I", "-S", "-c", _UNSEEN, str(folder)]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603
    guard.wait()
    return guard
