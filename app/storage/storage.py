"""Folders of files over objects: the same bytes are kept once, however many folders they are in."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.storage.objects import Objects

GRACE = timedelta(minutes=15)
"""Contents that nothing names are kept this long, because what names them may be about to be written."""

_FOLDERS = "folders/"
_CONTENTS = "contents/"


class DigestError(Exception):
    """A content is not what it was said to be; has its real SHA-256."""


class Storage:
    """Keeps folders under prefixes of two words, such as `<job>/output`.

    A folder is a list of names and digests, written last, so that a folder is there whole or not at all. What lies
    behind a digest is shared by all folders and uploads, and goes with `sweep` once none of them names it.
    """

    def __init__(self, objects: Objects, cache: Path) -> None:
        """Open a storage.

        Args:
            objects: Where the bytes are.
            cache: Local folder for copies of what lies elsewhere.
        """
        self.objects = objects
        self._cache = cache

    def publish(self, folder: Path, prefix: str, digests: Mapping[str, str] | None = None) -> None:
        """Take over a folder: afterwards either all of its files are there, or none.

        Args:
            folder: A local folder; it is gone afterwards.
            prefix: Where its files go.
            digests: SHA-256 of files by relative name, in hexadecimal, as far as they are known.
        """
        known = digests or {}
        names = {}
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = file.relative_to(folder).as_posix()
            names[name] = known.get(name) or file_digest(file)
            self.keep(file, names[name])
        self.objects.write(f"{_FOLDERS}{prefix}.json", json.dumps(names).encode())
        shutil.rmtree(folder)

    def fetch(self, prefix: str, folder: Path) -> None:
        """Copy every file under a prefix into a local folder.

        Args:
            prefix: A folder, or one inside it.
            folder: Where to put it; it is made.

        Raises:
            FileNotFoundError: If there is no such folder, or one of its files is gone.
        """
        top, inside = _split(prefix)
        names = self._names(top)
        if names is None:
            raise FileNotFoundError(prefix)
        for name, digest in names.items():
            if not inside or name.startswith(f"{inside}/"):
                self.take(digest, folder / name.removeprefix(f"{inside}/" if inside else ""))

    def find(self, key: str) -> Path | None:
        """Give a local path to one file.

        Args:
            key: The file.

        Returns:
            A path to read from, or None if there is no such file.
        """
        digest = self.digest(key)
        return None if digest is None else self.copy(digest)

    def digest(self, key: str) -> str | None:
        """Tell what one file holds.

        Args:
            key: The file.

        Returns:
            Its SHA-256, in hexadecimal; None if there is no such file.
        """
        top, inside = _split(key)
        names = self._names(top)
        return None if names is None else names.get(inside)

    def copy(self, digest: str) -> Path | None:
        """Give a local path to one content; what lies elsewhere is fetched once and kept for a while.

        Args:
            digest: Its SHA-256, in hexadecimal.

        Returns:
            A path to read from, or None if there is no such content.
        """
        local = self.objects.path(_content(digest))
        if local is not None:
            return local
        cached = self._cache / digest
        if not _touched(cached):
            part = self._cache / f"{digest}.{uuid.uuid4().hex}"
            self._cache.mkdir(parents=True, exist_ok=True)
            try:
                self.objects.fetch(_content(digest), part)
            except FileNotFoundError:
                return None
            part.replace(cached)
        return cached

    def link(self, digest: str) -> str | None:
        """Make an address to download one content from without the service.

        Args:
            digest: Its SHA-256, in hexadecimal.

        Returns:
            The address; None where clients do not reach the storage.
        """
        return self.objects.link(_content(digest))

    def gather(self, parts: Sequence[str], digest: str) -> None:
        """Make one content of objects, if they are what is expected.

        Args:
            parts: Their keys, in order.
            digest: SHA-256 of all of them together, in hexadecimal.

        Raises:
            DigestError: If they are something else; nothing is kept then.
        """
        blocks = self._checked(parts, digest)
        found = self.objects.find(_content(digest))
        if found is not None and datetime.now(UTC) - found.modified < GRACE / 2:
            for _ in blocks:  # read all the same: who names a digest need not have the content
                pass
        else:
            self.objects.put_stream(blocks, _content(digest))

    def _checked(self, parts: Sequence[str], digest: str) -> Iterator[bytes]:
        hashed = hashlib.sha256()
        for part in parts:
            for block in self.objects.stream(part):
                hashed.update(block)
                yield block
        if hashed.hexdigest() != digest:
            raise DigestError(hashed.hexdigest())

    def remove(self, prefix: str) -> None:
        """Remove a folder, or all folders of a job; nothing happens if there is none.

        Args:
            prefix: What to remove.
        """
        self.objects.remove(f"{_FOLDERS}{prefix}.json")
        for found in tuple(self.objects.list(f"{_FOLDERS}{prefix}/")):
            self.objects.remove(found.key)

    def remove_others(self, needed: Callable[[], Collection[str]]) -> None:
        """Remove the folders of jobs that are not needed, unless they are new.

        Args:
            needed: Names the jobs whose folders stay; asked after the folders are listed, so that no job is missed.
        """
        before = datetime.now(UTC) - GRACE
        found = tuple(self.objects.list(_FOLDERS))
        jobs = needed()
        for folder in found:
            if folder.modified < before and folder.key.split("/")[1] not in jobs:
                self.objects.remove(folder.key)

    def keep(self, file: Path, digest: str) -> None:
        """Take over one file's content; a content that is there is not written again.

        Args:
            file: The file; it is gone afterwards.
            digest: Its SHA-256, in hexadecimal.
        """
        found = self.objects.find(_content(digest))
        if found is not None and datetime.now(UTC) - found.modified < GRACE / 2:
            file.unlink()
        else:  # written anew also where it is old: a sweep that has already chosen it must find it young
            self.objects.put(file, _content(digest))

    def take(self, digest: str, file: Path) -> None:
        """Copy one content to a local file.

        Args:
            digest: Its SHA-256, in hexadecimal.
            file: The file to make, with its folder.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        self.objects.fetch(_content(digest), file)

    def sweep(self, named: frozenset[str]) -> tuple[int, int]:
        """Remove contents that no folder names, and local copies that were not read for a while.

        Args:
            named: Digests that are needed besides those of folders.

        Returns:
            How many contents were removed, and their bytes.
        """
        before = datetime.now(UTC) - GRACE
        needed = named | frozenset(self._all_digests())
        count = size = 0
        for found in tuple(self.objects.list(_CONTENTS)):
            if found.modified < before and found.key.rpartition("/")[2] not in needed:
                self.objects.remove(found.key)
                count, size = count + 1, size + found.size
        for copy in self._cache.glob("*"):
            with suppress(FileNotFoundError):  # another service of this machine was faster
                if datetime.fromtimestamp(copy.stat().st_mtime, UTC) < before:
                    copy.unlink()
        return count, size

    def _all_digests(self) -> Iterator[str]:
        for found in tuple(self.objects.list(_FOLDERS)):
            content = self.objects.read(found.key)
            if content is not None:
                yield from json.loads(content).values()

    def _names(self, top: str) -> dict[str, str] | None:
        content = self.objects.read(f"{_FOLDERS}{top}.json")
        return None if content is None else json.loads(content)


def file_digest(file: Path) -> str:
    """Compute a file's SHA-256.

    Args:
        file: The file.

    Returns:
        The digest in hexadecimal.
    """
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _touched(copy: Path) -> bool:
    """Keep a local copy for another while; False if there is none, which must not make an empty one."""
    try:
        os.utime(copy)
    except FileNotFoundError:
        return False
    return True


def _content(digest: str) -> str:
    return f"{_CONTENTS}{digest[:2]}/{digest}"


def _split(key: str) -> tuple[str, str]:
    """The folder of two words that a key lies in, and the rest."""
    words = key.split("/")
    return "/".join(words[:2]), "/".join(words[2:])
