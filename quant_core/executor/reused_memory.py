"""Memory that a network's tensors are freed from stays with the process while a job lasts, for the next ones."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM, _PAD, _MAPPED = -1, -2, -3  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of mallopt(3)
_HELD, _AHEAD = 1 << 28, 1 << 24
_BEFORE = ((_TRIM, 1 << 26), (_PAD, 1 << 17), (_MAPPED, 1 << 25))
"""Where the defaults of glibc end after large tensors were freed; these move by themselves and cannot be read."""


@contextmanager
def reused_memory() -> Iterator[None]:
    """Have glibc keep up to 256 MiB that are freed, in place of handing large pieces back at once.

    A tensor of more than 32 MiB otherwise lies in pages of its own that the kernel clears and maps, every time anew:
    one second of the twenty that a ResNet-18 takes. Elsewhere than on glibc this does nothing.

    Yields:
        Nothing; what is held goes back when the context ends.
    """
    try:
        library = ctypes.CDLL(None)
        set_option, trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):  # no glibc
        yield
        return
    try:
        for option, value in ((_TRIM, _HELD), (_PAD, _AHEAD), (_MAPPED, _HELD)):
            set_option(option, value)
        yield
    finally:
        for option, value in _BEFORE:
            set_option(option, value)
        trim(0)
