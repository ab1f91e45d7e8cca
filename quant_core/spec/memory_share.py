"""How much of its usual memory a job may use for batches: less than all after it ran out of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_IN_FORCE: ContextVar[float] = ContextVar("memory_share", default=1.0)


def memory_share() -> float:
    """Tell how much of its usual memory a job may use for batches here.

    Returns:
        The share, 1 by default.
    """
    return _IN_FORCE.get()


@contextmanager
def with_less_memory(share: float) -> Iterator[None]:
    """Have batches use a share of the usual memory, within this context.

    Args:
        share: Above 0, and 1 at most.

    Yields:
        Nothing.
    """
    before = _IN_FORCE.set(share)
    try:
        yield
    finally:
        _IN_FORCE.reset(before)
