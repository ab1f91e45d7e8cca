"""Many requests: so many under way at a time, none sent twice, whatever happens in between."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from bitwright.errors import (
    BitwrightError,
    InvalidRequestError,
    RateLimitedError,
    ServiceBusyError,
    ServiceUnreachableError,
)
from bitwright.external_data import external_files
from bitwright.file_digest import file_digest
from bitwright.ledger import Entry, Ledger
from bitwright.operations import follow, jobs
from bitwright.operations.answers import LONGEST_WISH
from bitwright.operations.submit import Given, Wishes, submit, workshop
from bitwright.options import QuantizeOptions, request_of
from bitwright.results import JobInfo
from bitwright.steps import Operation, Pause, Work
from quant_core.spec import QuantizeSpec

if TYPE_CHECKING:
    from bitwright.sample_file import Samples

J = TypeVar("J")


class _Required(TypedDict):
    model: str | PathLike[str] | Any
    data: Samples


class QuantizeRequest(_Required, QuantizeOptions, total=False):
    """The arguments of one `quantize` of a batch.

    Attributes:
        spec: A complete request instead of the options.
        example_inputs: Inputs of one batch, to export a torch module with.
        tags: Words to find the job by.
        webhook: Address that the service tells that the job has ended.
    """

    spec: QuantizeSpec
    example_inputs: Any
    tags: tuple[str, ...]
    webhook: str


@dataclass(frozen=True)
class BatchResult(Generic[J]):
    """What became of one request of a batch.

    Attributes:
        job: The job as it ended; None if there is none.
        error: Why there is no result: `JobFailedError`, or what the service or the client refused.
    """

    job: J | None
    error: BitwrightError | None

    @property
    def succeeded(self) -> bool:
        """Whether there is a result."""
        return self.error is None


def places(concurrency: int) -> int:
    """Check how many jobs are to be under way at a time.

    Args:
        concurrency: How many.

    Returns:
        The same.

    Raises:
        InvalidRequestError: If none may be.
    """
    if concurrency < 1:
        raise InvalidRequestError(
            f"{concurrency} jobs at a time are none.",
            remedy="Ask for 1 or more.",
            where="concurrency",
            code="spec",
        )
    return concurrency


def read_batch_request(request: Mapping[str, Any]) -> Given:
    """Read the arguments of one `quantize`.

    Args:
        request: The arguments.

    Returns:
        What is wanted.

    Raises:
        InvalidRequestError: If an argument is missing or cannot be used.
    """
    if not isinstance(request, Mapping):
        raise InvalidRequestError(
            f"A {type(request).__name__} is no request of a batch.",
            remedy='Give each as {"model": ..., "data": ..., "size": ...}.',
            code="spec",
        )
    options = dict(request)
    try:
        model, data = options.pop("model"), options.pop("data")
    except KeyError as error:
        raise InvalidRequestError(
            f"A request of the batch has no {error.args[0]}.",
            remedy='Give each as {"model": ..., "data": ..., "size": ...}.',
            where=str(error.args[0]),
            code="spec",
        ) from error
    names = ("example_inputs", "tags", "spec", "webhook")
    example, tags, spec, webhook = (options.pop(name, None) for name in names)
    return Given(model, data, request_of(QuantizeSpec, options, spec), example, tuple(tags or ()), webhook)


def run_one(
    request: Mapping[str, Any], ledger: Ledger, see: Callable[[JobInfo], None]
) -> Operation[BitwrightError | None]:
    """Send one request unless it was sent before, and wait for its job.

    Args:
        request: The arguments of `quantize`.
        ledger: What was sent.
        see: Told of the job.

    Returns:
        Why there is no result, if there is none.
    """
    try:
        given = read_batch_request(request)
        with workshop() as folder:
            model, data = yield Work(lambda: given.files(folder))
            entry: Entry = yield Work(lambda: ledger.entry(_digest(given, model, data)))
            sent = entry.job_id
            info = None if sent is None else (yield from _patiently(lambda: jobs.get(sent)))
            if info is not None and info.error is not None and info.error.retryable:
                entry, info = (yield Work(lambda: ledger.again(entry))), None
            if info is None:
                wishes, key = Wishes(given.tags, given.webhook), entry.key
                info = yield from _patiently(
                    lambda: submit("/quantize", model, data, given.spec, wishes, key=key)
                )
                accepted = info.id
                yield Work(lambda: ledger.accepted(entry, accepted))
        see(info)
        ended = yield from follow.wait(info.id, on_progress=see)
        follow.succeeded(ended)
    except BitwrightError as error:
        return error
    return None


def _patiently(ask: Callable[[], Operation[JobInfo]]) -> Operation[JobInfo]:
    """Bear a service that is away as `wait` does, and wait for room where the key has as many jobs as it may."""
    until = time.monotonic() + follow.PATIENCE_SECONDS
    while True:
        pause = follow.POLL_SECONDS
        try:
            return (yield from ask())
        except RateLimitedError as error:
            if error.retry_after > LONGEST_WISH:
                raise
            until = time.monotonic() + follow.PATIENCE_SECONDS
            pause = max(pause, error.retry_after)
        except (ServiceUnreachableError, ServiceBusyError):
            if time.monotonic() >= until:
                raise
        yield Pause(pause)


def _digest(given: Given, model: Path, data: Path) -> str:
    """SHA-256 over all that makes a request what it is."""
    files = [model, data, *(model.parent / name for name in external_files(model))]
    told = [
        model.name,
        data.name,
        given.spec.model_dump_json(exclude_defaults=True),
        *given.tags,
        *([given.webhook] if given.webhook else ()),
        *map(file_digest, files),
    ]
    return hashlib.sha256("\0".join(told).encode()).hexdigest()
