"""What becomes of a request where nothing more can be stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.api.problems import ProblemError


@contextmanager
def storing() -> Iterator[None]:
    """Answer 507 where a file cannot be written within this context.

    Yields:
        Nothing.

    Raises:
        ProblemError: If the disk or the bucket refuses.
    """
    try:
        yield
    except OSError as error:
        raise ProblemError(
            507,
            "storage",
            f"The upload cannot be kept: {error.strerror or error}.",
            remedy="Free space in the service's data folder, then send it again.",
        ) from error
