"""Uploads: partial ones as files of this machine, complete ones as names for what lies in the storage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from app.storage.direct import DirectUploads
from app.storage.records import Records, Upload
from app.storage.storage import DigestError, Storage

UPLOAD_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ROOT = "uploads/"


class Uploads:
    """The uploads of every owner.

    Attributes:
        direct: Parts that clients write to the storage themselves.
    """

    def __init__(self, storage: Storage, folder: Path, lifetime: timedelta) -> None:
        """Open the uploads.

        Args:
            storage: Keeps complete ones.
            folder: Keeps partial ones.
            lifetime: How long one is kept that nobody uses.
        """
        self._storage = storage
        self._folder = folder
        self._lifetime = lifetime
        self._records = Records(storage.objects)
        self.direct = DirectUploads(storage)

    def find(self, owner: str, name: str) -> Upload | None:
        """Look for a complete upload.

        Args:
            owner: Whose it is.
            name: Its id.

        Returns:
            The upload; None if there is none, it has expired, or it is being sent anew.
        """
        if re.fullmatch(UPLOAD_ID, name) is None or self._begun_anew(owner, name):
            return None
        upload = self._records.find(_key(owner, name))
        return None if upload is None or upload.expires < datetime.now(UTC) else upload

    def of(self, owner: str) -> dict[str, Upload]:
        """List an owner's complete uploads.

        Args:
            owner: The owner.

        Returns:
            Id -> upload, the one that was sent or used last first; none that has expired.
        """
        moment = datetime.now(UTC)
        living = {
            name: upload
            for name, upload in self._named(owner).items()
            if upload.expires >= moment and not self._begun_anew(owner, name)
        }
        return dict(sorted(living.items(), key=lambda item: item[1].expires, reverse=True))

    def used(self, owner: str, besides: str) -> int:
        """Add up what an owner's uploads hold, complete or not.

        Args:
            owner: The owner.
            besides: An upload that is not counted.

        Returns:
            Bytes; a content that is stored once but named twice counts twice.
        """
        names = (path.name for path in self.partial(owner, besides).parent.iterdir())
        partial = sum(self.begun(owner, name) or 0 for name in names if name != besides)
        done = sum(upload.bytes for name, upload in self._named(owner).items() if name != besides)
        return partial + done + self.direct.used(owner, besides)

    def partial(self, owner: str, name: str) -> Path:
        """Give the file that an upload is written to until it is complete.

        Args:
            owner: Whose it is.
            name: Its id.

        Returns:
            The file; it need not be there, its folder is.
        """
        folder = self._folder / quote(owner, safe="")
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def begun(self, owner: str, name: str) -> int | None:
        """Look for an upload that is not complete.

        Args:
            owner: Whose it is.
            name: Its id.

        Returns:
            How many bytes of it are here; None if there is none, or it has just become complete.
        """
        try:
            return self.partial(owner, name).stat().st_size
        except FileNotFoundError:
            return None

    def complete(self, owner: str, name: str, digest: str) -> Upload:
        """Keep what was written as a complete upload.

        Args:
            owner: Whose it is.
            name: Its id.
            digest: SHA-256 of the file, in hexadecimal.

        Returns:
            The upload.
        """
        file = self.partial(owner, name)
        # The name comes first: a sweep between the two must find the content needed.
        upload = self._note(owner, name, digest, file.stat().st_size)
        self._storage.keep(file, digest)
        return upload

    def complete_direct(self, owner: str, name: str, size: int, digest: str) -> Upload | None:
        """Keep what a client wrote past the service as a complete upload.

        Args:
            owner: Whose it is.
            name: Its id.
            size: Bytes of the whole.
            digest: Its SHA-256, in hexadecimal; if it is another, `DigestError` is raised and the parts are gone.

        Returns:
            The upload; None if parts are missing.

        Raises:
            DigestError: If the content is another.
        """
        try:
            if not self.direct.gather(owner, name, size, digest):
                return None
        except DigestError:
            self.direct.remove(owner, name)
            raise
        upload = self._note(
            owner, name, digest, size
        )  # the content is young, so that no sweep takes it before
        self.direct.remove(owner, name)
        return upload

    def _named(self, owner: str) -> dict[str, Upload]:
        """All of an owner's complete uploads, expired ones too, by their ids."""
        folder = _folder(owner)
        found = self._records.of(folder)
        return {key.removeprefix(folder).removesuffix(".json"): upload for key, upload in found.items()}

    def _begun_anew(self, owner: str, name: str) -> bool:
        """Whether other content is on its way under a name; a digest has but one content."""
        return not is_digest(name) and self.begun(owner, name) is not None

    def _note(self, owner: str, name: str, digest: str, size: int) -> Upload:
        upload = Upload(sha256=digest, bytes=size, expires=datetime.now(UTC) + self._lifetime)
        self._records.write(_key(owner, name), upload)
        return upload

    def take(self, owner: str, name: str, file: Path) -> Upload | None:
        """Copy a complete upload to a local file and keep it for another lifetime.

        Args:
            owner: Whose it is.
            name: Its id.
            file: The file to make, with its folder.

        Returns:
            The upload; None if there is none.
        """
        found = self.find(owner, name)
        if found is None:
            return None
        used = found.model_copy(update={"expires": datetime.now(UTC) + self._lifetime})
        self._records.write(_key(owner, name), used)
        try:
            self._storage.take(found.sha256, file)
        except FileNotFoundError:
            return None
        return used

    def remove(self, owner: str, name: str) -> bool:
        """Forget an upload.

        Args:
            owner: Whose it is.
            name: Its id.

        Returns:
            False if there was none.
        """
        partial = self.partial(owner, name)
        known = partial.exists() or self.find(owner, name) is not None
        known = self.direct.remove(owner, name) or known
        partial.unlink(missing_ok=True)
        self._storage.objects.remove(_key(owner, name))
        return known

    def sweep(self) -> tuple[int, int]:
        """Forget uploads that have expired, then remove contents that nothing names any more.

        Returns:
            How many contents were removed, and their bytes.
        """
        self.direct.sweep(self._lifetime)
        return self._storage.sweep(frozenset(self._living()))

    def _living(self) -> Iterator[str]:
        now = datetime.now(UTC)
        for found in tuple(self._storage.objects.list(_ROOT)):
            upload = self._records.find(found.key)
            if upload is None or upload.expires < now:
                self._storage.objects.remove(found.key)
            else:
                yield upload.sha256
        for partial in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):  # it has just become complete
                if datetime.fromtimestamp(partial.stat().st_mtime, UTC) < now - self._lifetime:
                    partial.unlink()


def is_digest(name: str) -> bool:
    """Tell whether an id is the SHA-256 of the content it stands for.

    Args:
        name: The id.

    Returns:
        Whether it has the form of one.
    """
    return _DIGEST.fullmatch(name) is not None


def _folder(owner: str) -> str:
    return f"{_ROOT}{quote(owner, safe='')}/"


def _key(owner: str, name: str) -> str:
    return f"{_folder(owner)}{name}.json"
