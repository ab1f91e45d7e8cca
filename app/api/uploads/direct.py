"""`/uploads/{id}/parts`: large files straight to the bucket, where clients can reach it."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.api.deps import OwnerDep, ServiceDep
from app.api.form.multipart import refuse_size
from app.api.problems import ProblemError, responses
from app.api.said_once import JsonRoute, SaidOnce
from app.api.storing import storing
from app.api.uploads.view import UploadId, UploadView, check_room, of_upload, other_digest
from app.service import Service
from app.storage import DigestError, is_digest

router = APIRouter(prefix="/uploads/{upload_id}", tags=["uploads"], route_class=JsonRoute)

_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_URL = "https://store.example/bucket/direct/local/resnet20.onnx/1110912/00000?X-Amz-Signature=..."


class PartsWish(BaseModel):
    """What is going to be sent.

    Attributes:
        bytes: Size of the whole content.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"bytes": 1110912}})

    bytes: Annotated[int, Field(ge=1, le=2**50, description="Size of the whole content.")]


class PartView(BaseModel):
    """A stretch of the content, and where to send it.

    Attributes:
        number: Its place, from 0.
        offset: Where it begins.
        bytes: Its size.
        url: Takes it by PUT for some minutes; needs no key, and must be shown none.
    """

    number: int = Field(description="Its place, from 0.")
    offset: int = Field(description="Where it begins.")
    bytes: int = Field(description="Its size.")
    url: str = Field(description="Takes it by PUT for some minutes; needs no key, and must be shown none.")


class PartsView(BaseModel):
    """What is to be sent next.

    Attributes:
        id: The upload.
        parts: Some of the parts that are not there yet; none once all are.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "resnet20.onnx",
                "parts": [{"number": 0, "offset": 0, "bytes": 1110912, "url": _URL}],
            }
        }
    )

    id: str = Field(description="The upload.")
    parts: list[PartView] = Field(description="Some of the parts that are not there yet; none once all are.")


class Completion(BaseModel):
    """What was sent.

    Attributes:
        bytes: Size of the whole content.
        sha256: Its SHA-256 in hexadecimal, which is checked.
    """

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"bytes": 1110912, "sha256": _DIGEST}}
    )

    bytes: int = Field(ge=1, le=2**50, description="Size of the whole content.")
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="Its SHA-256 in hexadecimal, which is checked."
    )


@router.post(
    "/parts",
    summary="Ask where to send a file past the service",
    description="Send each part by PUT to its address, ask again until there are none, then complete the upload. Where "
    "the service keeps files itself the answer is 409 `not_direct`: send the file with `PUT /uploads/{id}`.",
    response_description="The next parts, each with an address in the bucket.",
    responses=responses(409, 413, 422, 507),
    dependencies=[SaidOnce],
)
async def ask_for_parts(
    upload_id: UploadId, wish: PartsWish, service: ServiceDep, owner: OwnerDep
) -> PartsView:
    """Name the parts that are not there yet."""
    with storing():
        parts = await asyncio.to_thread(_next_parts, service, owner, upload_id, wish.bytes)
    return PartsView(id=upload_id, parts=parts)


@router.post(
    "/complete",
    status_code=201,
    summary="Complete a file that was sent past the service",
    response_description="All of it is here, and is what it was said to be.",
    responses=responses(400, 409, 413, 422, 507),
    dependencies=[SaidOnce],
)
async def complete_parts(
    upload_id: UploadId, sent: Completion, service: ServiceDep, owner: OwnerDep
) -> UploadView:
    """Read what is in the bucket and compare its size and SHA-256; name the upload in `POST /quantize` afterwards."""
    with storing():
        return await asyncio.to_thread(_complete, service, owner, upload_id, sent)


def _next_parts(service: Service, owner: str, name: str, size: int) -> list[PartView]:
    _refuse_local(service, name)
    _check_size(service, owner, name, size)
    if is_digest(name) and service.uploads.find(owner, name) is not None:
        return []
    return [PartView(**vars(part)) for part in service.uploads.direct.missing(owner, name, size)]


def _complete(service: Service, owner: str, name: str, sent: Completion) -> UploadView:
    _refuse_local(service, name)
    if is_digest(name) and name != sent.sha256:
        raise other_digest(name, sent.sha256, name)
    known = service.uploads.find(owner, name)
    if known is not None and (known.sha256, known.bytes) == (sent.sha256, sent.bytes):
        return of_upload(name, known)
    _check_size(service, owner, name, sent.bytes)
    try:
        upload = service.uploads.complete_direct(owner, name, sent.bytes, sent.sha256)
    except DigestError as error:
        raise other_digest(str(error), sent.sha256, name) from error
    if upload is None:
        raise ProblemError(
            409,
            "parts_missing",
            "Parts of the upload are not in the bucket, or have another size than they should.",
            remedy="Ask with POST /uploads/{id}/parts which, and send those.",
            where=name,
        )
    return of_upload(name, upload)


def _check_size(service: Service, owner: str, name: str, size: int) -> None:
    if size > service.settings.upload_limit:
        refuse_size(service.settings.upload_limit)
    check_room(service, owner, name, size)


def _refuse_local(service: Service, name: str) -> None:
    if not service.uploads.direct.offered():
        raise ProblemError(
            409,
            "not_direct",
            "Files reach this service's storage through the service alone.",
            remedy="Send the file with PUT /uploads/{id}.",
            where=name,
        )
