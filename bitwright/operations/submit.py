"""Sending a job."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import BaseModel

from bitwright.errors import BitwrightError, InvalidRequestError
from bitwright.external_data import external_files
from bitwright.operations.upload import LARGE, OnBytes, upload
from bitwright.requests import naming_fields, read_answer
from bitwright.results import JobInfo
from bitwright.sample_file import existing, sample_file
from bitwright.steps import Ask, Operation, Part, Send, Work
from quant_core.spec.shorthand import AsWritten

if TYPE_CHECKING:
    from bitwright.sample_file import Samples

CHECK_SECONDS = 600.0
"""A job is accepted after the files were checked, which takes the longer the larger they are."""

_TRIES = 8


@dataclass(frozen=True)
class Wishes:
    """What is said with a job besides its files and what is asked.

    Attributes:
        tags: Words to find it by.
        webhook: Address that is told that it has ended.
    """

    tags: tuple[str, ...] = ()
    webhook: str | None = None


NO_WISHES = Wishes()


@dataclass(frozen=True)
class Given:
    """What a user wants to have quantized or analyzed.

    Attributes:
        model: Path of the ONNX file, or a torch module.
        data: A file, arrays, or batches.
        spec: What is asked.
        example_inputs: Inputs of one batch, to export a torch module with.
        tags: Words to find the job by.
        webhook: Address that is told that the job has ended.
    """

    model: str | PathLike[str] | Any
    data: Samples
    spec: AsWritten
    example_inputs: Any = None
    tags: tuple[str, ...] = ()
    webhook: str | None = None

    def files(self, folder: Path) -> tuple[Path, Path]:
        """Make files of what is none yet.

        Args:
            folder: Where to.

        Returns:
            The model's and the samples' file.

        Raises:
            BitwrightError: If they cannot be used.
            InvalidRequestError: If something of the user's own fails, such as a loader or the export of a module.
        """
        try:
            if isinstance(self.model, str | PathLike):
                model = existing(self.model)
            else:
                from bitwright.torch_model import export  # only those who have modules need it

                model = export(self.model, self.example_inputs, folder)
            return model, sample_file(self.data, model, folder)
        except BitwrightError:
            raise
        except Exception as error:
            raise InvalidRequestError(
                f"Model and samples cannot be made files of: {type(error).__name__}: {error}.",
                remedy="Give paths, or what `Client.quantize` describes; the cause of this error tells more.",
                code="files",
            ) from error


@contextmanager
def workshop() -> Iterator[Path]:
    """Give a temporary folder.

    Yields:
        The folder.
    """
    with tempfile.TemporaryDirectory(prefix="bitwright-") as name:
        yield Path(name)


def send(
    route: str, given: Given, *, key: str | None = None, on_bytes: OnBytes | None = None
) -> Operation[JobInfo]:
    """Make files of what is none yet, and send them.

    Args:
        route: `/quantize` or `/analyze`.
        given: What the user wants.
        key: Names this request.
        on_bytes: Told how far large files are.

    Returns:
        The queued job.
    """
    with workshop() as folder:
        model, data = yield Work(lambda: given.files(folder))
        wishes = Wishes(given.tags, given.webhook)
        return (yield from submit(route, model, data, given.spec, wishes, key=key, on_bytes=on_bytes))


def submit(
    route: str,
    model: Path,
    data: Path,
    spec: AsWritten,
    wishes: Wishes = NO_WISHES,
    *,
    key: str | None = None,
    on_bytes: OnBytes | None = None,
) -> Operation[JobInfo]:
    """Send a model and samples; external data that the model names in its own folder goes with it.

    Args:
        route: `/quantize` or `/analyze`.
        model: The ONNX file.
        data: The samples.
        spec: What is asked.
        wishes: What is said with the job.
        key: Names this request, so that the service makes one job of it however often it arrives; one is made up
            where none is given.
        on_bytes: Told how far large files are.

    Returns:
        The queued job.
    """
    parts = [_spec(spec)]
    files = [("model", model, model.name), ("data", data, data.name)]
    files += [("files", model.parent / name, name) for name in external_files(model)]
    for field, path, name in files:
        if path.stat().st_size < LARGE:
            parts.append(Part(field, path, name))
        else:
            upload_id = yield from upload(path, _TRIES, on_bytes)
            parts.append(Part(field, f"{name}={upload_id}"))
    return (yield from _post(route, parts, wishes, key, spec))


def submit_again(
    job_id: str,
    spec: AsWritten,
    *,
    tags: Sequence[str] = (),
    webhook: str | None = None,
    key: str | None = None,
) -> Operation[JobInfo]:
    """Ask for another file from what an ended job was given and found.

    Args:
        job_id: The ended job.
        spec: What is asked.
        tags: Words to find the new job by.
        webhook: Address that is told that the new job has ended.
        key: Names this request.

    Returns:
        The new job, queued.
    """
    wishes = Wishes(tuple(tags), webhook)
    parts = [_spec(spec), Part("from_job", job_id)]
    return (yield from _post("/quantize", parts, wishes, key, spec))


def _post(
    route: str, parts: Sequence[Part], wishes: Wishes, key: str | None, spec: AsWritten
) -> Operation[JobInfo]:
    request = Send(
        "POST",
        route,
        headers={"Idempotency-Key": key or uuid.uuid4().hex},
        params={"tag": list(wishes.tags), "webhook": wishes.webhook},
        form=tuple(parts),
        timeout=(30.0, CHECK_SECONDS),
    )
    with naming_fields(spec, "spec"):
        response: httpx.Response = yield Ask(request)
    return read_answer(JobInfo, response.content)


def _spec(spec: BaseModel) -> Part:
    # What was not asked is not sent, so that a service that is older or newer can fill in what it knows.
    return Part("spec", spec.model_dump_json(exclude_unset=True), kind="application/json")
