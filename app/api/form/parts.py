"""The parts of a form that sends a job: where each goes, and what can be refused before anything is parsed."""

from __future__ import annotations

import asyncio
import codecs
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError
from starlette.requests import Request

from app.api.form.files import FILE_FIELDS, FormFiles
from app.api.form.multipart import Received, receive, refuse_announced
from app.api.problems import ProblemError
from app.api.said_once import refuse_repeated
from app.executors.devices import served_by
from quant_core.spec import JobSpec
from quant_core.spec.wrong_field import wrong_field

_ZIP, _NUMPY = b"PK\x03\x04", b"\x93NUMPY"
_EMPTY_ZIP = b"PK\x05\x06"


TakeOver = Callable[[str, Path, JobSpec], tuple[Path, Path, JobSpec]]
"""Given a job, a folder and what is asked, brings the job's files there: the model's and the samples' path,
and what is asked of the sensitivities it found."""

TakeUpload = Callable[[str, Path], str | None]
"""Given the id of an upload, copies it to a path and gives its SHA-256; None if there is no such upload."""


@dataclass(frozen=True)
class Upload:
    """What a request brought, on disk below one folder.

    Attributes:
        folder: Holds everything else; not there if nothing was sent.
        model: The model's file, with external data beside it.
        data: The samples' file.
        spec: What is asked.
        digests: SHA-256 of files by their name below the folder's `input`, as far as they are known.
    """

    folder: Path
    model: Path
    data: Path
    spec: JobSpec
    digests: Mapping[str, str] = field(default_factory=dict)


async def receive_upload(
    request: Request,
    staging: Path,
    limit: int,
    asked: type[JobSpec],
    take_upload: TakeUpload,
    take_over: TakeOver | None = None,
) -> Upload:
    """Read the body of `POST /quantize` or `POST /analyze` to disk and check what can be checked without parsing it.

    Args:
        request: The request.
        staging: Where to make a folder for it.
        limit: The most bytes to take.
        asked: What `spec` holds.
        take_upload: Brings the files that the form names by the ids of uploads.
        take_over: Brings the files of the job that `from_job` names; None where there is no such part.

    Returns:
        What came; its folder is the caller's to move or remove.
    """
    refuse_announced(request, limit)
    folder = staging / uuid.uuid4().hex
    files = FormFiles(folder / "input", "spec", *(() if take_over is None else ("from_job",)))
    try:
        received = await receive(request.stream(), request.headers.get("content-type", ""), files, limit)
        digests = dict(received.digests)
        named = [(name, text) for name in FILE_FIELDS for text in received.texts.get(name, ())]
        spec = _read_spec(_only(received, "spec") or b"{}", asked)
        earlier = _only(received, "from_job")
        if take_over is not None and earlier is not None:
            if received.files or named:
                _refuse_mixture()
            job_id = _word(earlier)
            return Upload(folder, *await asyncio.to_thread(take_over, job_id, folder / "input", spec))
        for name, text in named:
            digests |= await asyncio.to_thread(take_named, files, name, text, take_upload)
        if files.model is None or files.data is None:
            _refuse_missing("model" if files.model is None else "data", or_job=take_over is not None)
        check_model(files.model)
        samples = check_data(files.data, files.data_name)
        if files.data in digests:
            digests[samples] = digests.pop(files.data)
        known = {file.relative_to(folder / "input").as_posix(): digest for file, digest in digests.items()}
        return Upload(folder, files.model, samples, spec, known)
    except BaseException:  # also when the client goes away in the middle
        shutil.rmtree(folder, ignore_errors=True)
        raise


def check_device(spec: JobSpec, devices: tuple[str, ...]) -> None:
    """Refuse a request for a device that is not here.

    Args:
        spec: What is asked.
        devices: What the service computes on.

    Raises:
        ProblemError: If no device serves it.
    """
    if not any(spec.device in served_by(device) for device in devices):
        raise ProblemError(
            422,
            "spec",
            f"This service has no device {spec.device!r}; it computes on {', '.join(devices)}.",
            remedy='Leave the device out, or write "auto".',
            where="spec.device",
        )


def take_named(files: FormFiles, field: str, text: bytes, take_upload: TakeUpload) -> dict[Path, str]:
    """Bring one file that the form names as `ID` or `NAME=ID`.

    Args:
        files: Where the files of the form go.
        field: Name of the form field.
        text: What it says.
        take_upload: Brings the upload.

    Returns:
        Its path and SHA-256.

    Raises:
        ProblemError: If there is no such upload.
    """
    name, _, upload_id = _word(text).rpartition("=")
    path = files.place(field, name or upload_id)
    digest = take_upload(upload_id, path)
    if digest is None:
        raise ProblemError(
            404,
            "no_such_upload",
            f"The part names an upload, and there is none of the id {upload_id[:200]!r}.",
            remedy=f"Send it with PUT /uploads/{{id}} until it is complete; to send a file here, write {field}=@FILE.",
            where=field,
        )
    return {path: digest}


def _word(text: bytes) -> str:
    # What no id can have stays so: it finds nothing, and no database stumbles over it.
    return text.decode("utf-8", "replace").replace("\0", "\ufffd").strip()


def _only(received: Received, name: str) -> bytes | None:
    texts = received.texts.get(name, [])
    if len(texts) > 1:
        raise ProblemError(
            400, "unexpected_part", "The form has this part twice.", remedy="Send it once.", where=name
        )
    return texts[0] if texts else None


def _refuse_mixture() -> NoReturn:
    raise ProblemError(
        400,
        "unexpected_part",
        "The form has from_job and files, but the files are those of that job.",
        remedy="Send either from_job, or model and data.",
        where="from_job",
    )


def _refuse_missing(name: str, *, or_job: bool) -> NoReturn:
    raise ProblemError(
        422,
        "missing_part",
        f"The form has no part named {name!r}.",
        remedy="Send the ONNX file as `model` and the samples as `data`"
        + (", or the id of a job that succeeded as `from_job`." if or_job else "."),
        where=name,
    )


def _read_spec(text: bytes, asked: type[JobSpec]) -> JobSpec:
    text = text.removeprefix(codecs.BOM_UTF8) or b"{}"
    try:
        spec = asked.model_validate_json(text)
    except ValidationError as error:
        message, field = wrong_field(error, asked)
        raise ProblemError(
            422,
            "spec",
            message,
            remedy="Correct this field of the spec; /docs lists what it takes.",
            where=f"spec.{field}" if field else "spec",
        ) from error
    refuse_repeated(text, code="spec", where="spec")
    return spec


def check_model(model: Path) -> None:
    """Refuse what is no ONNX file at first sight.

    Args:
        model: A file.

    Raises:
        ProblemError: If it is empty, a zip archive or a pickle.
    """
    start = _start(model)
    if not start:
        what = "The file is empty."
    elif start[:4] in {_ZIP, _EMPTY_ZIP}:
        what = "This is a zip archive, such as numpy's .npz and PyTorch's .pt files, not an ONNX model."
    elif start[:1] == b"\x80" and start[1:2] in {bytes([version]) for version in range(6)}:
        what = "This is a Python pickle, not an ONNX model; pickles can run code and are never opened here."
    else:
        return
    raise ProblemError(
        400,
        "model",
        what,
        remedy="Send an .onnx file as `model`, such as torch.onnx.export writes, and samples as `data`.",
        where=model.name,
    )


def check_data(upload: Path, name: str) -> Path:
    """Refuse what are no samples at first sight, and give the file the suffix of what it is.

    Args:
        upload: A file.
        name: What the client calls it.

    Returns:
        Where it is now.

    Raises:
        ProblemError: If it is neither `.npz` nor `.npy`.
    """
    start = _start(upload)
    if start[:4] in {_ZIP, _EMPTY_ZIP}:
        suffix = ".npz"
    elif start[:6] == _NUMPY:
        suffix = ".npy"
    else:
        raise ProblemError(
            400,
            "samples",
            "The samples are empty." if not start else "The samples are neither .npz nor .npy.",
            remedy="Save them with numpy.savez (one array per graph input) or numpy.save (one input).",
            where=name,
        )
    stem = re.sub(r"\.np[yz]$", "", name, flags=re.IGNORECASE)
    return upload.rename(upload.with_name(stem + suffix))


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)
