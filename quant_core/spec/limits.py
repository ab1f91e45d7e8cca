"""How large a model may be: what the engine can bear, and less where whoever runs it says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

MAX_NODES = 100_000
"""Most nodes a model may have; the largest real ones have some 20,000."""
MAX_DEPTH = 16
"""Deepest nesting of subgraphs that is read; real models stay below 5."""


@dataclass(frozen=True)
class Limits:
    """How large a model may be.

    Attributes:
        nodes: Most nodes, with functions expanded and subgraphs by their depth; `MAX_NODES` at most.
        nesting: How deep subgraphs may lie in each other, `MAX_DEPTH` at most.
        tensor_bytes: Most bytes of one stored tensor; None for no limit.
    """

    nodes: int = MAX_NODES
    nesting: int = MAX_DEPTH
    tensor_bytes: int | None = None


_WIDEST = Limits()
_IN_FORCE: ContextVar[Limits] = ContextVar("limits", default=_WIDEST)


def limits() -> Limits:
    """Tell which limits hold here.

    Returns:
        Those of the innermost `limited_to`.
    """
    return _IN_FORCE.get()


@contextmanager
def limited_to(chosen: Limits) -> Iterator[None]:
    """Let models be this large at most, within this context.

    Args:
        chosen: The limits.

    Yields:
        Nothing.
    """
    before = _IN_FORCE.set(chosen)
    try:
        yield
    finally:
        _IN_FORCE.reset(before)
