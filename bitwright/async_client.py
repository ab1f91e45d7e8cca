"""The same client for those who await."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import httpx

from bitwright.address import client_options
from bitwright.async_job import AsyncJob
from bitwright.client import upload_bar_on_demand, words
from bitwright.connection import AsyncConnection
from bitwright.ledger import Ledger
from bitwright.operations import jobs
from bitwright.operations.batch import BatchResult, QuantizeRequest, places, run_one
from bitwright.operations.submit import Given, send
from bitwright.options import AnalyzeOptions, QuantizeOptions, request_of
from bitwright.results import Health, JobInfo, JobState
from quant_core.spec import AnalyzeSpec, QuantizeSpec

if TYPE_CHECKING:
    from bitwright.sample_file import Samples


class AsyncJobs:
    """The jobs of a service; every method is that of `Client.jobs`, awaited."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, job_id: str) -> AsyncJob:
        """Find a job again."""
        return AsyncJob(self._connection, await self._connection.run(jobs.get(job_id)))

    async def list(
        self,
        *,
        state: JobState | Sequence[JobState] = (),
        tag: str | Sequence[str] = (),
        text: str = "",
        limit: int = 50,
        offset: int = 0,
    ) -> list[AsyncJob]:
        """List jobs, newest first."""
        found = await self._connection.run(jobs.page(words(state), words(tag), text, limit, offset))
        return [AsyncJob(self._connection, info) for info in found]


class AsyncClient:
    """Talks to a Bitwright service from an event loop; every method is that of `Client`, awaited.

    Attributes:
        jobs: The jobs of the service.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Connect to a service; nothing is sent yet."""
        options = client_options(url, api_key, timeout, transport)
        self._connection = AsyncConnection(httpx.AsyncClient(**options), retries=retries)
        self.jobs = AsyncJobs(self._connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()

    async def quantize(
        self,
        model: str | PathLike[str] | Any,
        example_inputs: Any = None,
        *,
        data: Samples,
        spec: QuantizeSpec | None = None,
        tags: Sequence[str] = (),
        webhook: str | None = None,
        progress: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[QuantizeOptions],
    ) -> AsyncJob:
        """Send a model and samples; external data that the model names in its own folder goes with it."""
        given = Given(
            model, data, request_of(QuantizeSpec, options, spec), example_inputs, tuple(tags), webhook
        )
        return await self._send("/quantize", given, idempotency_key, progress=progress)

    async def analyze(
        self,
        model: str | PathLike[str] | Any,
        example_inputs: Any = None,
        *,
        data: Samples,
        spec: AnalyzeSpec | None = None,
        tags: Sequence[str] = (),
        webhook: str | None = None,
        progress: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[AnalyzeOptions],
    ) -> AsyncJob:
        """Send a model and samples to learn what each layer loses in few bits; nothing is quantized."""
        given = Given(
            model, data, request_of(AnalyzeSpec, options, spec), example_inputs, tuple(tags), webhook
        )
        return await self._send("/analyze", given, idempotency_key, progress=progress)

    async def quantize_many(
        self,
        requests: Iterable[QuantizeRequest],
        *,
        concurrency: int = 4,
        resume_file: str | PathLike[str] | None = None,
        on_done: Callable[[BatchResult[AsyncJob]], None] | None = None,
    ) -> list[BatchResult[AsyncJob]]:
        """Quantize many models, so many at a time, and wait for all of them."""
        path = None if resume_file is None else Path(resume_file)
        room = asyncio.Semaphore(places(concurrency))

        async def one(request: Mapping[str, Any]) -> BatchResult[AsyncJob]:
            seen: list[AsyncJob] = []

            def see(info: JobInfo) -> None:
                seen[:] = [AsyncJob(self._connection, info)]

            async with room:
                error = await self._connection.run(run_one(request, ledger, see))
            result = BatchResult(seen[0] if seen else None, error)
            if on_done is not None:
                on_done(result)
            return result

        with Ledger(path) as ledger:
            return await asyncio.gather(*map(one, requests))

    async def health(self) -> Health:
        """Ask how the service is."""
        return await self._connection.run(jobs.health())

    async def _send(self, route: str, given: Given, key: str | None, *, progress: bool) -> AsyncJob:
        with ExitStack() as stack:
            bar = stack.enter_context(upload_bar_on_demand()) if progress else None
            info = await self._connection.run(send(route, given, key=key, on_bytes=bar))
        return AsyncJob(self._connection, info)
