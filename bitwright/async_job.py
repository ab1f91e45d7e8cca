"""The same handle on a job for those who await."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from bitwright.connection import AsyncConnection
from bitwright.job import JobHandle, job_bar_on_demand
from bitwright.operations import follow, jobs
from bitwright.operations.download import download
from bitwright.operations.submit import submit_again
from bitwright.options import QuantizeOptions
from bitwright.results import JobInfo
from quant_core.spec import BitPlan, Report, SensitivityTable


class AsyncJob(JobHandle):
    """A handle on one job of an `AsyncClient`; every method is that of `Job`, awaited."""

    def __init__(self, connection: AsyncConnection, info: JobInfo) -> None:
        super().__init__(info)
        self._connection = connection

    async def refresh(self) -> AsyncJob:
        """Look at it again."""
        self.info = await self._connection.run(jobs.get(self.id))
        return self

    async def wait(
        self,
        timeout: float | None = None,
        on_progress: Callable[[JobInfo], None] | None = None,
        *,
        progress: bool = False,
    ) -> AsyncJob:
        """Wait until it has succeeded; raises `JobFailedError` or `JobCanceledError` if it has not."""
        with ExitStack() as stack:
            show = stack.enter_context(job_bar_on_demand()) if progress else None
            await self._connection.run(follow.wait(self.id, timeout, self._watch(show, on_progress)))
        follow.succeeded(self.info)
        return self

    async def cancel(self) -> AsyncJob:
        """Cancel it while it waits or runs; `ConflictError` tells that it has already ended."""
        self.info = await self._connection.run(jobs.cancel(self.id))
        return self

    async def delete(self) -> None:
        """Delete it and its files at the service; a job that waits or runs is canceled instead."""
        await self._connection.run(jobs.delete(self.id))

    async def report(self) -> Report:
        """Read what was asked, found, chosen and measured; `ConflictError` while there is no result."""
        return await self._connection.run(jobs.report(self.id))

    async def sensitivities(self) -> SensitivityTable:
        """Read what each layer loses at each bit-width; `ConflictError` while there is no result."""
        return await self._connection.run(jobs.sensitivities(self.id))

    async def plan(self, **spec: Any) -> BitPlan:
        """Ask for another plan from what the job measured; it comes at once, and no new file is made."""
        return await self._connection.run(jobs.plan(self.id, spec))

    async def quantize(
        self,
        *,
        tags: Sequence[str] = (),
        webhook: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[QuantizeOptions],
    ) -> AsyncJob:
        """Ask for another file from what the job measured: nothing is sent again, and no probe is run."""
        spec = jobs.asked_again(self.info, options)
        operation = submit_again(self.id, spec, tags=tags, webhook=webhook, key=idempotency_key)
        return AsyncJob(self._connection, await self._connection.run(operation))

    async def download(self, folder: str | PathLike[str]) -> Path:
        """Fetch the model, the reports and the tables; a file appears under its name only when it is complete."""
        return await self._connection.run(download(self.info, Path(folder), self._connection.retries))
