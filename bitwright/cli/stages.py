"""One progress bar for each stage of the engine."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from quant_core.spec import Progress as Step
from quant_core.spec import Stage


class StageBars:
    """Draws what the engine tells; where output is not a terminal, it writes one line a stage instead."""

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

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, step: Step) -> None:
        """Show one step.

        Args:
            step: What the engine does.
        """
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
