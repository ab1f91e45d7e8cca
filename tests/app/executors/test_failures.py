"""What is told of work that failed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from app.executors.failures import fault, told
from quant_core.errors import ModelError


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


def test_a_fault_says_what_it_was_and_where_the_log_has_more() -> None:
    found = fault(ZeroDivisionError("by zero"), "job 7")
    assert found.message == "The engine failed: ZeroDivisionError: by zero"
    assert "under job 7" in found.remedy


def test_users_read_names_of_their_files_and_not_where_they_lie() -> None:
    model, data = Path("/srv/a/net.onnx"), Path("/srv/b/x.npz")
    found = told(ModelError(f"{model} and {data}.", remedy=f"Mend {model}.", where=f"{data}"), model, data)
    assert (found.message, found.remedy, found.where) == ("net.onnx and x.npz.", "Mend net.onnx.", "x.npz")
    assert told(ModelError("broken", remedy="mend"), model).where is None
