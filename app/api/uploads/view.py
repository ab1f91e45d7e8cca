"""What all routes of uploads share: their names, how one is shown, and what is refused."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, ConfigDict

from app.api.problems import ProblemError
from app.service import Service
from app.storage import UPLOAD_ID, Upload

_EXAMPLE = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

UploadId = Annotated[
    str,
    Path(
        pattern=UPLOAD_ID,
        description="Any plain word of the client's; 64 hexadecimal digits are the SHA-256 of the content and checked.",
        examples=[_EXAMPLE],
    ),
]


class UploadView(BaseModel):
    """An upload as its owner sees it.

    Attributes:
        id: Its name.
        bytes: How many bytes are here.
        complete: Whether that is all of them.
        sha256: Digest of the content in hexadecimal, once it is complete.
        expires: When it is forgotten, unless a job uses it before.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "resnet20.onnx",
                "bytes": 1110912,
                "complete": True,
                "sha256": _EXAMPLE,
                "expires": "2026-01-16T09:30:00Z",
            }
        }
    )

    id: str
    bytes: int
    complete: bool
    sha256: str | None = None
    expires: datetime | None = None


def of_upload(name: str, upload: Upload) -> UploadView:
    """Show a complete upload.

    Args:
        name: Its id.
        upload: The upload.

    Returns:
        What its owner sees of it.
    """
    return UploadView(id=name, complete=True, **upload.model_dump())


def check_room(service: Service, owner: str, name: str, coming: int) -> int:
    """Compare what is coming with what its owner may keep.

    Args:
        service: The service.
        owner: Who sends it.
        name: The upload.
        coming: How many bytes there will be at least.

    Returns:
        The most bytes that this upload may have.

    Raises:
        ProblemError: If it does not fit.
    """
    limit, quota = service.settings.upload_limit, service.settings.upload_quota
    if not quota:
        return limit
    left = quota - service.uploads.used(owner, name)
    if left <= 0 or coming > left:
        raise ProblemError(
            413,
            "quota",
            f"The upload does not fit into the {quota} bytes that may be kept at a time; {max(0, left)} are free.",
            remedy="Delete uploads that are not needed, or wait until they are forgotten.",
            where=name,
        )
    return min(limit, left)


def other_digest(found: str, promised: str, name: str) -> ProblemError:
    """Say that a content is not what it was said to be.

    Args:
        found: Its SHA-256, in hexadecimal.
        promised: What that should be.
        name: The upload.

    Returns:
        The error to raise.
    """
    return ProblemError(
        400,
        "digest",
        f"The content's SHA-256 is {found}, and {promised} was promised.",
        remedy="Send it again from the start.",
        where=name,
    )
