"""A job at the service: look at it, wait for it, cancel it, fetch what it made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from bitwright.connection import Connection
from bitwright.operations import follow, jobs
from bitwright.operations.download import download
from bitwright.operations.submit import submit_again
from bitwright.options import QuantizeOptions
from bitwright.results import JobInfo, JobState
from quant_core.spec import BitPlan, Report, SensitivityTable


class JobHandle:
    """What is known of one job.

    Attributes:
        info: The job as it was last seen.
    """

    def __init__(self, info: JobInfo) -> None:
        self.info = info

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(id={self.id!r}, state={self.state!r}, progress={self.info.progress:.2f})"
        )

    @property
    def id(self) -> str:
        """Its name; `client.jobs.get` finds it again."""
        return self.info.id

    @property
    def state(self) -> JobState:
        """Where it stood when it was last looked at."""
        return self.info.state

    def _watch(
        self, show: Callable[[JobInfo], None] | None, tell: Callable[[JobInfo], None] | None
    ) -> Callable[[JobInfo], None]:
        def look(info: JobInfo) -> None:
            self.info = info
            for listener in (show, tell):
                if listener is not None:
                    listener(info)

        return look


class Job(JobHandle):
    """A handle on one job of a `Client`; `info` is how it stood when it was last looked at."""

    def __init__(self, connection: Connection, info: JobInfo) -> None:
        super().__init__(info)
        self._connection = connection

    def refresh(self) -> Job:
        """Look at it again.

        Returns:
            This job.
        """
        self.info = self._connection.run(jobs.get(self.id))
        return self

    def wait(
        self,
        timeout: float | None = None,
        on_progress: Callable[[JobInfo], None] | None = None,
        *,
        progress: bool = False,
    ) -> Job:
        """Wait until it has succeeded; raises `JobFailedError` or `JobCanceledError` if it has not.

        Args:
            timeout: Seconds after which to give up with `WaitTimeoutError`; the job goes on.
            on_progress: Called with the job whenever something is new.
            progress: Whether to draw a progress bar.

        Returns:
            This job.
        """
        with ExitStack() as stack:
            show = stack.enter_context(job_bar_on_demand()) if progress else None
            self._connection.run(follow.wait(self.id, timeout, self._watch(show, on_progress)))
        follow.succeeded(self.info)
        return self

    def cancel(self) -> Job:
        """Cancel it while it waits or runs; `ConflictError` tells that it has already ended.

        Returns:
            This job.
        """
        self.info = self._connection.run(jobs.cancel(self.id))
        return self

    def delete(self) -> None:
        """Delete it and its files at the service; a job that waits or runs is canceled instead."""
        self._connection.run(jobs.delete(self.id))

    def report(self) -> Report:
        """Read what was asked, found, chosen and measured; `ConflictError` while there is no result.

        Returns:
            The report.
        """
        return self._connection.run(jobs.report(self.id))

    def sensitivities(self) -> SensitivityTable:
        """Read what each layer loses at each bit-width; `ConflictError` while there is no result.

        Returns:
            The table.
        """
        return self._connection.run(jobs.sensitivities(self.id))

    def plan(self, **spec: Any) -> BitPlan:
        """Ask for another plan from what the job measured; it comes at once, and no new file is made.

        Args:
            spec: Fields of `PlanSpec`, such as `size=0.2`, `bops="3G"` or `pin={"fc": 8}`.

        Returns:
            The plan; `ConflictError` while the job has no result.
        """
        return self._connection.run(jobs.plan(self.id, spec))

    def quantize(
        self,
        *,
        tags: Sequence[str] = (),
        webhook: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[QuantizeOptions],
    ) -> Job:
        """Ask for another file from what the job measured: nothing is sent again, and no probe is run.

        Args:
            tags: Words to find the new job by.
            webhook: Address that the service tells that the new job has ended.
            idempotency_key: Names this request, as in `Client.quantize`.
            options: Options of `Client.quantize`, such as `size=0.2`. What is not given is as this job was asked, but
                for its budget; pins and exclusions join the rules it had.

        Returns:
            The new job, queued; `ConflictError` while this one has no result.
        """
        spec = jobs.asked_again(self.info, options)
        operation = submit_again(self.id, spec, tags=tags, webhook=webhook, key=idempotency_key)
        return Job(self._connection, self._connection.run(operation))

    def download(self, folder: str | PathLike[str]) -> Path:
        """Fetch `model.onnx`, `report.json`, `report.html`, `sensitivity.json`, `pareto.json` and `costs.json`.

        An analysis has the tables alone, and the spectrum where it was asked for. What belongs to pairs of layers,
        `interactions.npz`, comes with any table that names it.

        Args:
            folder: Where to; it is made. A file appears under its name only when it is complete.

        Returns:
            The folder.
        """
        return self._connection.run(download(self.info, Path(folder), self._connection.retries))


def job_bar_on_demand() -> AbstractContextManager[Callable[[JobInfo], None]]:
    """Draw a bar for a job.

    Returns:
        The context in which it is drawn.
    """
    from bitwright.progress import job_bar  # only those who look at it load rich

    return job_bar()
