"""Progress bars: for a job at the service, and for files on their way there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from bitwright.results import JobInfo
from bitwright.terminal import Terminal


@contextmanager
def job_bar(console: Console | None = None) -> Iterator[Callable[[JobInfo], None]]:
    """Draw a bar for a job.

    Args:
        console: Where to draw; by default standard error, so that output can be piped.

    Yields:
        What to tell of the job whenever something is new.
    """
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}"),
    )
    with Progress(*columns, console=console or Terminal(stderr=True)) as bar:
        task = bar.add_task("queued", total=1.0, message="")

        def show(info: JobInfo) -> None:
            stage = info.stage if info.running and info.stage else info.state
            bar.update(task, completed=info.progress, description=stage, message=escape(info.message))

        yield show


@contextmanager
def upload_bar(console: Console | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Draw a bar for each file that is sent by itself.

    Args:
        console: Where to draw; by default standard error.

    Yields:
        What to tell of a file: its name, how many bytes of it have gone, and how many there are.
    """
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console or Terminal(stderr=True))
    tasks: dict[str, TaskID] = {}

    def show(name: str, done: int, size: int) -> None:
        bar.start()
        if name not in tasks:
            tasks[name] = bar.add_task(escape(name), total=size)
        bar.update(tasks[name], completed=done)

    try:
        yield show
    finally:
        if tasks:  # its end is a line of its own, also where nothing was drawn
            bar.stop()
