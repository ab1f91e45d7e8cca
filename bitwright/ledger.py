"""What a batch has sent, in a file that outlives the process."""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from bitwright.errors import InvalidRequestError

_BEGINNING = b'{"request": "'
"""How every line begins."""


@dataclass(frozen=True)
class Entry:
    """One request of a batch.

    Attributes:
        name: What was asked, as a digest, and the how-many-eth time.
        key: Its idempotency key: written down before anything is sent.
        job_id: The job that the service made of it, once that is known.
    """

    name: str
    key: str
    job_id: str | None


class Ledger:
    """Remembers keys and jobs of requests: in a file, each line on disk before the call returns, or in memory alone."""

    def __init__(self, path: Path | None) -> None:
        """Read what an earlier process wrote.

        Args:
            path: The file; it is made if it is not there.

        Raises:
            InvalidRequestError: If the file is another one's, or no ledger.
        """
        self._keys: dict[str, str] = {}
        self._jobs: dict[str, str] = {}
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        if path is not None:
            self._file = path.open("a+b")
            try:
                _hold(self._file, path)
                self._read(self._file, path)
            except InvalidRequestError:
                self._file.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def entry(self, digest: str) -> Entry:
        """Find or make the entry of a request; the same request twice in one batch has two.

        Args:
            digest: What is asked, files included.

        Returns:
            The entry.
        """
        with self._lock:
            name = f"{digest}#{self._seen[digest]}"
            self._seen[digest] += 1
            if name not in self._keys:
                self._keys[name] = uuid.uuid4().hex
                self._write({"request": name, "key": self._keys[name]})
            return Entry(name, self._keys[name], self._jobs.get(name))

    def again(self, entry: Entry) -> Entry:
        """Begin a request anew, whatever became of it before.

        Args:
            entry: The request.

        Returns:
            The same with a key of its own and no job.
        """
        with self._lock:
            key = self._keys[entry.name] = uuid.uuid4().hex
            self._jobs.pop(entry.name, None)
            self._write({"request": entry.name, "key": key})
            return Entry(entry.name, key, None)

    def accepted(self, entry: Entry, job_id: str) -> None:
        """Write down which job the service made of a request.

        Args:
            entry: The request.
            job_id: The job.
        """
        with self._lock:
            self._jobs[entry.name] = job_id
            self._write({"request": entry.name, "job": job_id})

    def _read(self, file: IO[bytes], path: Path) -> None:
        file.seek(0)
        content = file.read()
        whole, _, rest = content.rpartition(b"\n")
        try:
            for line in whole.splitlines():
                said = json.loads(line)
                name = str(said["request"])
                if "key" in said:
                    self._keys[name] = str(said["key"])
                    self._jobs.pop(name, None)  # it was begun anew
                else:
                    self._jobs[name] = str(said["job"])
            if rest[: len(_BEGINNING)] != _BEGINNING[: len(rest)]:
                raise ValueError(rest)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequestError(
                "This is no resume file of a batch.",
                remedy="Name another file; it is made if it is not there.",
                where=str(path),
                code="resume_file",
            ) from error
        file.truncate(len(content) - len(rest))  # a process that was killed may have left half a line

    def _write(self, line: dict[str, str]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())


def _hold(file: IO[bytes], path: Path) -> None:
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidRequestError(
                "Another process works with this resume file.",
                remedy="Wait for it, or name another file.",
                where=str(path),
                code="resume_file",
            ) from error
