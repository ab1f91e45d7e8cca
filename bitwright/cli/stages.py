"""One progress bar for each stage of the engine."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from quant_core.spec import Progress as Step
from quant_core.spec import Stage


class StageBars:
    """Draws what the engine tells; where output is not a terminal, it writes one line a stage instead.

    Meanwhile Ctrl-C and an order to end take the same way out, so that no half-written folder stays behind. Python
    drops what is raised while an object is being finalised; so a signal is raised once more at the next step.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[message]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[Stage, TaskID] = {}
        self._caught: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._catch)
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._caught = number
        self._leave()

    def _leave(self) -> None:
        if self._caught == signal.SIGINT:
            raise KeyboardInterrupt
        if self._caught is not None:
            sys.exit(128 + self._caught)

    def __call__(self, step: Step) -> None:
        """Show one step.

        Args:
            step: What the engine does.
        """
        self._leave()
        if step.stage not in self._tasks:
            self._finish_others()
            self._tasks[step.stage] = self._bars.add_task(step.stage, total=1.0, message="")
            if not self._console.is_terminal:
                self._console.print(f"{step.stage}: {step.message}", markup=False, highlight=False)
        self._bars.update(self._tasks[step.stage], completed=step.fraction, message=escape(step.message))

    def _finish_others(self) -> None:
        for task in self._tasks.values():
            self._bars.update(task, completed=1.0)
            self._bars.stop_task(task)
