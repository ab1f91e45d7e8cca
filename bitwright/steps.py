"""What a conversation with the service is made of, apart from how bytes travel.

Every operation of the client is a generator that yields steps and is sent what they gave; `Client` and `AsyncClient`
run the same operations and differ only in how they carry out a step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

Operation = Generator["Step", Any, T]
"""Yields steps, is sent what each gave, and returns a result."""

_BLOCK = 2**20


@dataclass(frozen=True)
class Part:
    """One part of a form.

    Attributes:
        name: Name of the field.
        content: Its text, or the file that it is read from.
        filename: Name that the service is to know a file by; None for text.
        kind: Its media type, where it matters.
    """

    name: str
    content: str | Path
    filename: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class FileBody:
    """A file, or the rest of one, as the body of a request.

    Attributes:
        path: The file.
        offset: Where to begin.
        length: How many bytes; None for all to the end.
        on_bytes: Told how many bytes of the file have been handed over.
    """

    path: Path
    offset: int = 0
    length: int | None = None
    on_bytes: Callable[[int], None] | None = None

    @property
    def size(self) -> int:
        """How many bytes it is."""
        return self.path.stat().st_size - self.offset if self.length is None else self.length

    def blocks(self) -> Iterator[bytes]:
        """Read it.

        Yields:
            The bytes, a block at a time.
        """
        done, end = self.offset, self.offset + self.size
        with self.path.open("rb") as file:
            file.seek(done)
            while block := file.read(min(_BLOCK, end - done)):
                yield block
                done += len(block)
                if self.on_bytes is not None:
                    self.on_bytes(done)


@dataclass(frozen=True)
class Send:
    """Send a request once and give the answer, whatever it is.

    Attributes:
        method: The HTTP method.
        path: The address below the service's; a whole one of elsewhere is shown no key.
        params: The query.
        headers: Headers besides the usual ones.
        form: The parts of a form as the body.
        body: Bytes or a file as the body.
        timeout: Seconds to wait for connecting, and for the next bytes either way.
        safe: Whether sending it twice does no more than sending it once.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    form: tuple[Part, ...] = ()
    body: bytes | FileBody | None = None
    timeout: tuple[float, float] | None = None
    safe: bool = True


@dataclass(frozen=True)
class Ask:
    """Send a request, again where that is safe and can help, and give the answer; errors are raised.

    Attributes:
        request: What to send.
    """

    request: Send


@dataclass
class Saved:
    """How far a download is.

    Attributes:
        bytes: How many bytes are in the file.
        tag: Entity tag of what they are the beginning of; empty if the answer had none that could be relied on.
        digest: SHA-256 that the whole should have, in hexadecimal; empty if it was not told.
    """

    bytes: int = 0
    tag: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Save:
    """Send a request once and write the answer's body to a file, unless it is an error; give the answer.

    What is there already is gone on with, where it is still the same content.

    Attributes:
        request: What to send.
        file: The file to make.
        saved: What is there; told what comes.
    """

    request: Send
    file: Path
    saved: Saved = field(default_factory=Saved)


@dataclass(frozen=True)
class Open:
    """Send a request once and give the answer before its body, which `Line` then reads.

    Attributes:
        request: What to send.
    """

    request: Send


@dataclass(frozen=True)
class Line:
    """Give the next line of what was opened, or None at its end."""


@dataclass(frozen=True)
class Close:
    """Close what was opened."""


@dataclass(frozen=True)
class Pause:
    """Wait.

    Attributes:
        seconds: How long.
    """

    seconds: float


@dataclass(frozen=True)
class Work:
    """Call a function that takes its time over files.

    Attributes:
        function: What to call.
    """

    function: Callable[[], Any]


Step = Send | Ask | Save | Open | Line | Close | Pause | Work
