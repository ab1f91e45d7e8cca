"""What is told of work that failed."""

from __future__ import annotations

import errno

import pytest

from app.executors.failures import fault


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
            "out_of_memory",
        ),
        (RuntimeError("Failed to allocate memory for requested buffer of size 8"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "storage"),
        (RuntimeError("an index is off by one"), "internal"),
    ],
)
def test_what_ran_out_is_told_from_a_fault(error: Exception, code: str) -> None:
    assert fault(error, "work").code == code
