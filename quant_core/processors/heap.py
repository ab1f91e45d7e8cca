"""Freed memory, given back to the system."""

from __future__ import annotations

import ctypes
import sys


def trim_heap() -> None:
    """Give freed memory back to the system, where the C library can do so at all.

    glibc keeps what threads have freed for those that come after them, and each of them gets a heap of its own: after
    layers were worked off side by side, hundreds of megabytes that nobody uses count as this process's memory.
    """
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)
