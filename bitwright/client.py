"""The client: one connection to one service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import httpx

from bitwright.address import client_options
from bitwright.connection import Connection
from bitwright.job import Job
from bitwright.ledger import Ledger
from bitwright.operations import jobs
from bitwright.operations.batch import BatchResult, QuantizeRequest, places, run_one
from bitwright.operations.submit import Given, send
from bitwright.options import AnalyzeOptions, QuantizeOptions, request_of
from bitwright.results import Health, JobInfo, JobState
from quant_core.spec import AnalyzeSpec, QuantizeSpec

if TYPE_CHECKING:
    from bitwright.sample_file import Samples


class Jobs:
    """The jobs of a service."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, job_id: str) -> Job:
        """Find a job again.

        Args:
            job_id: Its name.

        Returns:
            The job.
        """
        return Job(self._connection, self._connection.run(jobs.get(job_id)))

    def list(
        self,
        *,
        state: JobState | Sequence[JobState] = (),
        tag: str | Sequence[str] = (),
        text: str = "",
        limit: int = 50,
        offset: int = 0,
    ) -> list[Job]:
        """List jobs, newest first.

        Args:
            state: Only jobs in this state, or in one of these.
            tag: Only jobs with this tag, or with all of these.
            text: Only jobs with all of these words in their file names, tags or id.
            limit: How many at most.
            offset: How many newer ones to pass over.

        Returns:
            The jobs.
        """
        found = self._connection.run(jobs.page(words(state), words(tag), text, limit, offset))
        return [Job(self._connection, info) for info in found]


class Client:
    """Talks to a Bitwright service. Close it, or use it in a `with` statement; several threads may share it.

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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connect to a service; nothing is sent yet.

        Args:
            url: Its address; by default the environment's `BITWRIGHT_URL`, else `http://127.0.0.1:8000`.
            api_key: The key to show; by default the environment's `BITWRIGHT_API_KEY`, if there is one.
            timeout: Seconds to wait for an answer.
            retries: How often to try again, with growing pauses.
            transport: What carries the requests, for tests and special networks.
        """
        options = client_options(url, api_key, timeout, transport)
        self._connection = Connection(httpx.Client(**options), retries=retries)
        self.jobs = Jobs(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._connection.close()

    def quantize(
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
    ) -> Job:
        """Send a model and samples; external data that the model names in its own folder goes with it.

        Args:
            model: The ONNX file, or a torch module, which is exported here.
            example_inputs: The inputs of one batch, to export a torch module with.
            data: A `.npz` or `.npy` file, an array, arrays by graph input with optional `labels`, or batches of such as
                a torch `DataLoader` gives them.
            spec: A complete request instead of the options.
            tags: Words to find the job by.
            webhook: Address that the service tells, by a signed POST, that the job has ended.
            progress: Whether to draw a bar for each large file.
            idempotency_key: Names this request: the service makes one job of it, however often it arrives.
            options: What is asked, such as `size=0.18` or `pin={"fc": 8}`: the fields of `QuantizeSpec`.

        Returns:
            The queued job. `InvalidRequestError` says why a request is refused, and what to do.
        """
        given = Given(
            model, data, request_of(QuantizeSpec, options, spec), example_inputs, tuple(tags), webhook
        )
        return self._send("/quantize", given, idempotency_key, progress=progress)

    def analyze(
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
    ) -> Job:
        """Send a model and samples to learn what each layer loses in few bits; nothing is quantized.

        Args:
            model: The ONNX file, or a torch module, which is exported here.
            example_inputs: The inputs of one batch, to export a torch module with.
            data: The samples, as in `quantize`.
            spec: A complete request instead of the options.
            tags: Words to find the job by.
            webhook: Address that the service tells, by a signed POST, that the job has ended.
            progress: Whether to draw a bar for each large file.
            idempotency_key: Names this request, as in `quantize`.
            options: What is asked, such as `sensitivity="gauss_newton"`: the fields of `AnalyzeSpec`.

        Returns:
            The queued job; its `sensitivities()` are the result.
        """
        given = Given(
            model, data, request_of(AnalyzeSpec, options, spec), example_inputs, tuple(tags), webhook
        )
        return self._send("/analyze", given, idempotency_key, progress=progress)

    def quantize_many(
        self,
        requests: Iterable[QuantizeRequest],
        *,
        concurrency: int = 4,
        resume_file: str | PathLike[str] | None = None,
        on_done: Callable[[BatchResult[Job]], None] | None = None,
    ) -> list[BatchResult[Job]]:
        """Quantize many models, so many at a time, and wait for all of them.

        With a resume file the call may be killed and made again with the same requests: jobs that were sent are found
        again, and none is sent twice.

        Args:
            requests: The arguments of `quantize`, one mapping for each.
            concurrency: How many jobs are under way at a time.
            resume_file: Where to remember what was sent.
            on_done: Called with each result as it comes, from another thread.

        Returns:
            The results, in the order of the requests; a request that fails does not stop the others.
        """
        path = None if resume_file is None else Path(resume_file)

        def one(request: Mapping[str, Any]) -> BatchResult[Job]:
            seen: list[Job] = []

            def see(info: JobInfo) -> None:
                seen[:] = [Job(self._connection, info)]

            error = self._connection.run(run_one(request, ledger, see))
            result = BatchResult(seen[0] if seen else None, error)
            if on_done is not None:
                on_done(result)
            return result

        with Ledger(path) as ledger, ThreadPoolExecutor(places(concurrency), "bitwright-batch") as threads:
            return list(threads.map(one, requests))

    def health(self) -> Health:
        """Ask how the service is.

        Returns:
            What it says.
        """
        return self._connection.run(jobs.health())

    def _send(self, route: str, given: Given, key: str | None, *, progress: bool) -> Job:
        with ExitStack() as stack:
            bar = stack.enter_context(upload_bar_on_demand()) if progress else None
            info = self._connection.run(send(route, given, key=key, on_bytes=bar))
        return Job(self._connection, info)


def words(given: str | Sequence[Any]) -> tuple[Any, ...]:
    """Read one word or several.

    Args:
        given: A word, or words.

    Returns:
        The words.
    """
    return (given,) if isinstance(given, str) else tuple(given)


def upload_bar_on_demand() -> AbstractContextManager[Callable[[str, int, int], None]]:
    """Draw a bar for each file that is sent by itself.

    Returns:
        The context in which they are drawn.
    """
    from bitwright.progress import upload_bar  # only those who look at it load rich

    return upload_bar()
