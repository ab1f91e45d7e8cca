"""A progress bar for a job at the service."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bitwright.results import JobInfo


def draw(updates: Iterator[JobInfo], console: Console | None = None) -> Iterator[JobInfo]:
    """Draw a bar while passing on what it shows.

    Args:
        updates: The job, whenever something is new.
        console: Where to draw; by default standard error, so that output can be piped.

    Yields:
        The same updates.
    """
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}"),
    )
    with Progress(*columns, console=console or Console(stderr=True)) as bar:
        task = bar.add_task("queued", total=1.0, message="")
        for info in updates:
            stage = info.stage if info.running and info.stage else info.state
            bar.update(task, completed=info.progress, description=stage, message=escape(info.message))
            yield info
