"""What is said with a job besides model, samples and spec: tags, an idempotency key, whom to tell."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Header, Query

from app.api.deps import ServiceDep
from app.api.form.parts import Upload
from app.api.problems import ProblemError
from app.storage import file_digest

_Tag = Annotated[str, Query(pattern=r"^[\w.:-]{1,64}$")]


@dataclass(frozen=True)
class Wishes:
    """What is said with a job.

    Attributes:
        tags: Words to find it by.
        idempotency_key: The client's own name for this request.
        webhook: Where to tell that it has ended.
    """

    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    webhook: str | None = None


def _wishes(
    service: ServiceDep,
    tag: Annotated[
        list[_Tag], Query(default_factory=list, max_length=16, description="Words to find the job by later.")
    ],
    webhook: Annotated[
        str | None,
        Query(max_length=2048, description="Address that is told, by a signed POST, that the job has ended."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="The client's own name for this request: sent again, it gives the job that was queued "
            "the first time.",
        ),
    ] = None,
) -> Wishes:
    if webhook is not None:
        _check_webhook(webhook, service.settings.webhook_hosts)
    return Wishes(tuple(dict.fromkeys(tag)), idempotency_key, webhook)


WishesDep = Annotated[Wishes, Depends(_wishes)]


def fingerprint(upload: Upload, wishes: Wishes) -> str:
    """Tell a request from others under the same idempotency key.

    Args:
        upload: What came.
        wishes: What was said with it.

    Returns:
        SHA-256 of everything that makes the job.
    """
    root = upload.folder / "input"
    files = {
        name: upload.digests.get(name) or file_digest(path)
        for name, path in ((path.relative_to(root).as_posix(), path) for path in _files(root))
    }
    whole = [
        type(upload.spec).__name__,
        upload.spec.model_dump(mode="json"),
        upload.model.name,
        files,
        wishes.tags,
        wishes.webhook,
    ]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _check_webhook(address: str, allowed: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        # urlsplit leaves tabs and line ends out, and nothing sends to an address that has them.
        sendable = address.isprintable() and parts.port != 0
        plain = sendable and parts.scheme in {"http", "https"} and not parts.username
    except ValueError:
        host, plain = "", False
    if not plain or host not in allowed:
        raise ProblemError(
            422,
            "webhook",
            "This service may not send anything there.",
            remedy="Name an http(s) address on one of the hosts that BITWRIGHT_WEBHOOK_HOSTS lists.",
            where="query.webhook",
        )
