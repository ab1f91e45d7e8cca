"""The records of uploads: each is read once, however often they are added up."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from app.storage.objects import Objects


class Upload(BaseModel):
    """A complete upload.

    Attributes:
        sha256: Digest of its content, in hexadecimal.
        bytes: Size of its content.
        expires: When it is forgotten, unless it is used before.
    """

    model_config = ConfigDict(frozen=True)

    sha256: str
    bytes: int
    expires: datetime


class Records:
    """One small object for each upload. Several services may write them: a list tells which have changed."""

    def __init__(self, objects: Objects) -> None:
        """Start with none read.

        Args:
            objects: Where they are.
        """
        self._objects = objects
        self._read: dict[str, dict[str, tuple[str, Upload | None]]] = {}

    def of(self, folder: str) -> dict[str, Upload]:
        """List the uploads of a folder: what costs one request for each that is new, and one for all others.

        Args:
            folder: A key's beginning, up to a slash.

        Returns:
            Key -> upload, also of those that have expired; what cannot be read is none.
        """
        before, now = self._read.get(folder, {}), {}
        for found in tuple(self._objects.list(folder)):
            known = before.get(found.key)
            now[found.key] = (
                known if known and known[0] == found.version else (found.version, self.find(found.key))
            )
        self._read[folder] = now
        return {key: upload for key, (_, upload) in now.items() if upload is not None}

    def find(self, key: str) -> Upload | None:
        """Read one.

        Args:
            key: Its key.

        Returns:
            The upload; None if there is none.
        """
        content = self._objects.read(key)
        try:
            return None if content is None else Upload.model_validate_json(content)
        except ValidationError:
            return None

    def write(self, key: str, upload: Upload) -> None:
        """Write one.

        Args:
            key: Its key.
            upload: The upload.
        """
        self._objects.write(key, upload.model_dump_json().encode())
