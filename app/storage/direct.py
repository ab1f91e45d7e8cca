"""Uploads that go past the service: clients write parts to the bucket, and the service checks what became of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from app.storage.storage import Storage

PART_BYTES = 64 * 2**20
"""Bytes of each part but the last; what has to be sent again when a connection breaks."""

_AT_ONCE = 16
_ROOT = "direct/"


@dataclass(frozen=True)
class Part:
    """A stretch of a file, and where to write it.

    Attributes:
        number: Its place, from 0.
        offset: Where it begins.
        bytes: Its size.
        url: The address that takes it by PUT for some minutes, from anybody.
    """

    number: int
    offset: int
    bytes: int
    url: str


class DirectUploads:
    """The parts of every owner, under keys that tell the size of the whole."""

    def __init__(self, storage: Storage, part_bytes: int = PART_BYTES) -> None:
        self._storage = storage
        self._part_bytes = part_bytes

    def offered(self) -> bool:
        """Tell whether clients can reach the storage.

        Returns:
            Whether they can.
        """
        return self._storage.objects.ways_in([f"{_ROOT}x"]) is not None

    def missing(self, owner: str, name: str, size: int) -> tuple[Part, ...]:
        """Say which parts are to be written next.

        Args:
            owner: Whose upload it is.
            name: Its id.
            size: Bytes of the whole.

        Returns:
            The first parts that are not there, some at a time; none if all are.
        """
        here = self._here(owner, name, size)
        wanted = [cut for cut in self._cuts(size) if here.get(cut[0]) != cut[2]][:_AT_ONCE]
        keys = [f"{_folder(owner, name)}{size}/{number:05d}" for number, _, _ in wanted]
        urls = self._storage.objects.ways_in(keys) if keys else ()
        return tuple(Part(*cut, url) for cut, url in zip(wanted, urls or (), strict=True))

    def gather(self, owner: str, name: str, size: int, digest: str) -> bool:
        """Make a content of the parts.

        Args:
            owner: Whose upload it is.
            name: Its id.
            size: Bytes of the whole.
            digest: Its SHA-256, in hexadecimal; if it is another, `DigestError` is raised.

        Returns:
            False if parts are missing, or have another size than they should.
        """
        here = self._here(owner, name, size)
        cuts = tuple(self._cuts(size))
        if any(here.get(number) != length for number, _, length in cuts):
            return False
        self._storage.gather([f"{_folder(owner, name)}{size}/{cut[0]:05d}" for cut in cuts], digest)
        return True

    def used(self, owner: str, besides: str) -> int:
        """Add up what an owner's parts hold.

        Args:
            owner: The owner.
            besides: An upload that is not counted.

        Returns:
            Bytes.
        """
        found = self._storage.objects.list(f"{_ROOT}{quote(owner, safe='')}/")
        return sum(part.size for part in found if not part.key.startswith(_folder(owner, besides)))

    def remove(self, owner: str, name: str) -> bool:
        """Remove the parts of an upload.

        Args:
            owner: Whose it is.
            name: Its id.

        Returns:
            False if there were none.
        """
        parts = tuple(self._storage.objects.list(_folder(owner, name)))
        for part in parts:
            self._storage.objects.remove(part.key)
        return bool(parts)

    def sweep(self, lifetime: timedelta) -> None:
        """Remove parts of uploads that were never completed.

        Args:
            lifetime: How long one is waited for.
        """
        before = datetime.now(UTC) - lifetime
        for part in tuple(self._storage.objects.list(_ROOT)):
            if part.modified < before:
                self._storage.objects.remove(part.key)

    def _cuts(self, size: int) -> Iterator[tuple[int, int, int]]:
        for number, offset in enumerate(range(0, size, self._part_bytes)):
            yield number, offset, min(self._part_bytes, size - offset)

    def _here(self, owner: str, name: str, size: int) -> dict[int, int]:
        found = self._storage.objects.list(f"{_folder(owner, name)}{size}/")
        return {int(part.key.rpartition("/")[2]): part.size for part in found}


def _folder(owner: str, name: str) -> str:
    return f"{_ROOT}{quote(owner, safe='')}/{name}/"
