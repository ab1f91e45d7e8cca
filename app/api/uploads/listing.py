"""`GET /uploads`: what may be picked again for another job."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from app.api.deps import OwnerDep, ServiceDep
from app.api.problems import responses
from app.api.uploads.view import UploadView, of_upload

router = APIRouter(prefix="/uploads", tags=["uploads"])


class UploadPage(BaseModel):
    """Complete uploads of one owner.

    Attributes:
        uploads: Those sent or used last, first.
        total: How many there are in all.
    """

    uploads: list[UploadView]
    total: int


@router.get("", summary="List uploads", responses=responses(422))
def list_uploads(
    service: ServiceDep,
    owner: OwnerDep,
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.")] = 50,
) -> UploadPage:
    """List one's own complete uploads, the one that was sent or used last first."""
    found = service.uploads.of(owner)
    views = [of_upload(name, upload) for name, upload in found.items()]
    return UploadPage(uploads=views[:limit], total=len(views))
