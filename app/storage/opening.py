"""Opens the storage that `BITWRIGHT_STORAGE_URL` names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from app.storage.local import LocalObjects
from app.storage.objects import Objects
from app.storage.s3 import S3Objects
from app.storage.storage import Storage
from quant_core.errors import UserError

_S3_OPTIONS = frozenset({"endpoint", "region"})
_FORMS = "Write file:///folder, or s3://bucket/prefix?endpoint=http://host:port&region=name."


class StorageUrlError(UserError):
    """The storage's address cannot be used."""

    code = "storage_url"


def open_storage(url: str, data_dir: Path, public_endpoint: str | None = None) -> Storage:
    """Open a storage; nothing is sent yet.

    Args:
        url: `file:///folder` or `s3://bucket/prefix?endpoint=...&region=...`; empty for a folder in the data folder.
        data_dir: The data folder.
        public_endpoint: The S3 endpoint as clients reach it.

    Returns:
        The storage.
    """
    return Storage(_objects(url, data_dir, public_endpoint), data_dir / "cache")


def _objects(url: str, data_dir: Path, public_endpoint: str | None) -> Objects:
    if not url:
        return LocalObjects(data_dir / "store")
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets around what is no address
        parts = urlsplit("")
    if parts.scheme == "file" and not parts.netloc and parts.path:
        return LocalObjects(Path(unquote(parts.path)))
    options = dict(parse_qsl(parts.query))
    if parts.scheme != "s3" or not parts.netloc:
        raise StorageUrlError(
            f"{url!r} is not the address of a storage.", remedy=_FORMS, where="BITWRIGHT_STORAGE_URL"
        )
    if unknown := sorted(options.keys() - _S3_OPTIONS):
        raise StorageUrlError(
            f"{unknown[0]!r} is not an option of it.", remedy=_FORMS, where="BITWRIGHT_STORAGE_URL"
        )
    return S3Objects(parts.netloc, unquote(parts.path).strip("/"), options, public_endpoint)
