"""`/uploads`: large files as raw bytes, taken up again where a connection broke, kept once however often they come."""

from __future__ import annotations

import asyncio
import errno

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from app.api.deps import OwnerDep, ServiceDep
from app.api.form.multipart import refuse_size
from app.api.problems import ProblemError, responses
from app.api.storing import storing
from app.api.uploads.body import BusyError, TooLargeError, append, digest_of
from app.api.uploads.headers import Sent, read_headers
from app.api.uploads.view import UploadId, UploadView, check_room, of_upload, other_digest
from app.service import Service
from app.storage import is_digest
from app.transfers import TakenOverError

router = APIRouter(prefix="/uploads/{upload_id}", tags=["uploads"])


@router.put(
    "",
    status_code=201,
    summary="Send a file, or the rest of one",
    response_description="All of it is here.",
    responses={
        202: {"model": UploadView, "description": "More is to come, from Upload-Offset on."},
        **responses(400, 409, 413, 422, 507),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        "parameters": [
            {
                "in": "header",
                "name": name,
                "required": False,
                "description": text,
                "schema": {"type": "string"},
            }
            for name, text in (
                ("Upload-Offset", "Where these bytes begin; 0 by default, which begins anew."),
                ("Content-Range", "The same and the whole length, as curl writes it."),
                ("Upload-Length", "Bytes of the whole content."),
                ("Upload-Complete", "?0 if more follows and the length is not told."),
                ("Repr-Digest", "sha-256=:BASE64: of the whole content, to be checked."),
            )
        ],
    },
)
async def put_upload(
    upload_id: UploadId, request: Request, response: Response, service: ServiceDep, owner: OwnerDep
) -> UploadView:
    """Write the body behind what is here already; name the upload in `POST /quantize` when it is complete."""
    sent = read_headers(request.headers)
    declared = request.headers.get("content-length", "")
    coming = sent.offset + (int(declared) if declared.isdecimal() else 0)
    if max(sent.length or 0, coming) > service.settings.upload_limit:
        refuse_size(service.settings.upload_limit)
    with storing():
        known = None
        if is_digest(upload_id):
            known = await asyncio.to_thread(service.uploads.find, owner, upload_id)
        if known is not None:
            view = of_upload(upload_id, known)
        else:
            limit = await asyncio.to_thread(
                check_room, service, owner, upload_id, max(sent.length or 0, coming)
            )
            receiving = _receive(request, service, owner, upload_id, sent, limit)
            try:
                view = await service.transfers.run((owner, upload_id), receiving)
            except TakenOverError as error:
                raise ProblemError(
                    409,
                    "taken_over",
                    "Another request went on with this upload.",
                    remedy="Ask with HEAD how far it is.",
                    where=upload_id,
                ) from error
    response.status_code = 201 if view.complete else 202
    response.headers.update(_headers(view))
    return view


@router.head("", status_code=204, summary="Ask how far an upload is", responses=responses(404, 422))
async def head_upload(upload_id: UploadId, service: ServiceDep, owner: OwnerDep) -> Response:
    """Tell in `Upload-Offset` where to go on; a transfer that is still open is ended first."""
    await service.transfers.stop((owner, upload_id))
    return Response(
        status_code=204, headers=_headers(await asyncio.to_thread(_find, service, owner, upload_id))
    )


@router.get("", summary="Look at an upload", responses=responses(404, 422))
def get_upload(upload_id: UploadId, service: ServiceDep, owner: OwnerDep) -> UploadView:
    """Tell how many bytes are here, and when they are forgotten."""
    return _find(service, owner, upload_id)


@router.delete("", status_code=204, summary="Forget an upload", responses=responses(404, 422))
async def delete_upload(upload_id: UploadId, service: ServiceDep, owner: OwnerDep) -> Response:
    """Forget it; jobs that were given it keep what they need."""
    await service.transfers.stop((owner, upload_id))
    if not await asyncio.to_thread(service.uploads.remove, owner, upload_id):
        raise _unknown(upload_id)
    return Response(status_code=204)


async def _receive(
    request: Request, service: Service, owner: str, name: str, sent: Sent, limit: int
) -> UploadView:
    file = service.uploads.partial(owner, name)
    here = service.uploads.begun(owner, name) or 0
    if sent.offset not in {0, here}:
        whole = await asyncio.to_thread(service.uploads.find, owner, name)
        view = UploadView(id=name, bytes=here, complete=False) if whole is None else of_upload(name, whole)
        raise ProblemError(
            409,
            "upload_offset",
            f"The upload {'is complete with' if view.complete else 'has'} {view.bytes} bytes, and these begin at "
            f"{sent.offset}.",
            remedy="To replace it, send everything from 0."
            if view.complete
            else "Go on from Upload-Offset, or send everything from 0.",
            where=name,
            headers=_headers(view),
        )
    try:
        total, hashed = await append(request.stream(), file, sent.offset, min(limit, sent.length or limit))
    except TooLargeError:
        file.unlink()
        if limit >= service.settings.upload_limit and sent.length is None:
            refuse_size(limit)
        raise _unexpected(name, sent, limit) from None
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            file.unlink(missing_ok=True)  # what cannot be completed must not keep the disk full
        raise
    except BusyError as error:
        raise ProblemError(
            409,
            "upload_busy",
            "Another service process is receiving this upload.",
            remedy="End the other transfer, or wait a moment.",
            where=name,
        ) from error
    except ClientDisconnect as error:
        raise ProblemError(400, "cut_off", "The body was cut off.", remedy="Send the rest.") from error
    if total < sent.length if sent.length is not None else not sent.last:
        return UploadView(id=name, bytes=total, complete=False)
    digest = await digest_of(file, hashed)
    for expected in (sent.digest, name if is_digest(name) else None):
        if expected not in {None, digest}:
            file.unlink()
            raise other_digest(digest, str(expected), name)
    return of_upload(name, await asyncio.to_thread(service.uploads.complete, owner, name, digest))


def _find(service: Service, owner: str, name: str) -> UploadView:
    here = service.uploads.begun(owner, name)
    if here is not None:
        return UploadView(id=name, bytes=here, complete=False)
    upload = service.uploads.find(owner, name)
    if upload is None:
        raise _unknown(name)
    return of_upload(name, upload)


def _unexpected(name: str, sent: Sent, limit: int) -> ProblemError:
    """More came than was told, or than the quota leaves."""
    told = sent.length is not None and sent.length <= limit
    return ProblemError(
        413,
        "too_large" if told else "quota",
        f"More than the {sent.length} bytes came that Upload-Length tells."
        if told
        else f"More than the {limit} bytes came that are free for this owner's uploads.",
        remedy="Send as many bytes as you tell."
        if told
        else "Delete uploads that are not needed, or wait until they are forgotten.",
        where="Upload-Length" if told else name,
    )


def _headers(view: UploadView) -> dict[str, str]:
    return {
        "Upload-Offset": str(view.bytes),
        "Upload-Complete": "?1" if view.complete else "?0",
        "Cache-Control": "no-store",
    }


def _unknown(name: str) -> ProblemError:
    return ProblemError(
        404,
        "no_such_upload",
        "There is no upload of this id.",
        remedy="Send it with PUT /uploads/{id}; uploads that no job uses are forgotten after a while.",
        where=name,
    )
