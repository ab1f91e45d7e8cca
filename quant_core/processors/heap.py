"""Memory of this process: freed memory given back to the system, and errors that say that there is none left."""

from __future__ import annotations

import ctypes
import re
import sys

_NO_MEMORY = re.compile(
    r"bad_alloc|bad allocation|can't allocate memory|failed to allocate memory|not enough memory|out of memory",
    re.IGNORECASE,
)


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


def says_no_memory(error: BaseException) -> bool:
    """Tell whether an error's text is that of an allocator which found no memory.

    onnxruntime and torch raise plain errors then, and tell it in words alone.

    Args:
        error: What was raised.

    Returns:
        True if it is.
    """
    return _NO_MEMORY.search(str(error)) is not None
