"""Objects in a bucket of any S3 endpoint."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from app.storage.objects import Stored

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import RetryConfig, S3Store

_LINK_TIME = timedelta(minutes=15)
_BLOCK = 8 * 2**20
_FULL = re.compile(r"\b507\b|XMinioStorageFull|QuotaExceeded|StorageFull|InsufficientStorage")
"""How stores say that there is no room: Amazon's never is full, others are."""
_RETRIES: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}


class S3Objects:
    """Keeps objects in a bucket; credentials come from the environment's `AWS_*`."""

    def __init__(
        self, bucket: str, prefix: str, options: Mapping[str, str], public_endpoint: str | None
    ) -> None:
        """Connect to a bucket; nothing is sent yet.

        Args:
            bucket: Its name.
            prefix: What every key is put behind.
            options: `endpoint` and `region`, where the environment does not name them.
            public_endpoint: The endpoint as clients reach it, for addresses that are given to them.
        """
        self._store = _open(bucket, prefix, options)
        self._public = (
            None
            if public_endpoint is None
            else _open(bucket, prefix, {**options, "endpoint": public_endpoint})
        )

    def put(self, file: Path, key: str) -> None:
        """Send a file, in parts where it is large.

        Args:
            file: The file; it is gone afterwards.
            key: Where it goes.
        """
        with _as_os_error(key):
            self._store.put(key, file, chunk_size=_BLOCK, max_concurrency=4)
        file.unlink()

    def write(self, key: str, content: bytes) -> None:
        """Write something small.

        Args:
            key: Where it goes.
            content: The bytes.
        """
        with _as_os_error(key):
            self._store.put(key, content)

    def read(self, key: str) -> bytes | None:
        """Read something small.

        Args:
            key: The object.

        Returns:
            Its bytes, or None if there is no such object.
        """
        try:
            with _as_os_error(key):
                return bytes(self._store.get(key).bytes())
        except FileNotFoundError:
            return None

    def fetch(self, key: str, file: Path) -> None:
        """Copy an object to a local file.

        Args:
            key: The object.
            file: The file to make.
        """
        with _as_os_error(key):
            found = self._store.get(key)
            try:
                with file.open("wb") as out:
                    for block in found.stream(min_chunk_size=_BLOCK):
                        out.write(block)
            except BaseException:  # half a file would keep a full disk full
                file.unlink(missing_ok=True)
                raise

    def find(self, key: str) -> Stored | None:
        """Look at an object.

        Args:
            key: The object.

        Returns:
            What is known of it, or None if there is none.
        """
        try:
            with _as_os_error(key):
                found = self._store.head(key)
        except FileNotFoundError:
            return None
        return _stored(key, found)

    def path(self, key: str) -> None:
        """Give no path: objects are not local files."""

    def link(self, key: str) -> str | None:
        """Sign an address for reading.

        Args:
            key: The object.

        Returns:
            The address; None if clients do not reach the endpoint.
        """
        if self._public is None:
            return None
        import obstore

        return obstore.sign(self._public, "GET", key, _LINK_TIME)

    def ways_in(self, keys: Sequence[str]) -> tuple[str, ...] | None:
        """Sign addresses for writing.

        Args:
            keys: Where objects go.

        Returns:
            An address for each; None if clients do not reach the endpoint.
        """
        if self._public is None:
            return None
        import obstore

        return tuple(obstore.sign(self._public, "PUT", list(keys), _LINK_TIME))

    def stream(self, key: str) -> Iterator[bytes]:
        """Read something large.

        Args:
            key: The object.

        Yields:
            Its bytes, a block at a time.
        """
        with _as_os_error(key):
            for block in self._store.get(key).stream(min_chunk_size=_BLOCK):
                yield bytes(block)

    def put_stream(self, blocks: Iterator[bytes], key: str) -> None:
        """Send something large in parts; the object is there once all of them are.

        Args:
            blocks: The bytes.
            key: Where they go.
        """
        # The blocks may come from the store as well, which must not be asked from inside its own runtime.
        with ThreadPoolExecutor(1) as reader, _as_os_error(key):

            def pulled() -> Iterator[bytes]:
                while (block := reader.submit(next, blocks, None).result()) is not None:
                    yield block

            self._store.put(key, pulled(), chunk_size=_BLOCK, max_concurrency=4)

    def list(self, prefix: str) -> Iterator[Stored]:
        """List objects.

        Args:
            prefix: A key's beginning, up to a slash.

        Yields:
            The objects below it.
        """
        with _as_os_error(prefix):
            for page in self._store.list(prefix):
                for found in page:
                    yield _stored(found["path"], found)

    def remove(self, key: str) -> None:
        """Remove an object.

        Args:
            key: The object.
        """
        try:
            with _as_os_error(key):
                self._store.delete(key)
        except FileNotFoundError:
            return


def _stored(key: str, found: ObjectMeta) -> Stored:
    modified = found["last_modified"]
    return Stored(key, found["size"], modified, found["e_tag"] or f"{modified.timestamp()}")


def _open(bucket: str, prefix: str, options: Mapping[str, str]) -> S3Store:
    from obstore.store import S3Store

    endpoint = options.get("endpoint", "")
    return S3Store(
        bucket,
        prefix=prefix or None,
        config={**options},  # type: ignore[arg-type]
        client_options={"allow_http": endpoint.startswith("http://")},
        retry_config=_RETRIES,
    )


@contextmanager
def _as_os_error(key: str) -> Iterator[None]:
    """Speak of a bucket's troubles as of a disk's, so that callers need to know one kind."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError:
        raise
    except BaseError as error:
        told = f"the object store refused {key!r}: {error}"
        if _FULL.search(str(error)):
            raise OSError(errno.ENOSPC, told) from error
        raise OSError(told) from error
