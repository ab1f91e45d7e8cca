"""What the end of a worker process means."""

from __future__ import annotations

import errno
import signal

import pytest
from pebble import ProcessExpired

from app.executors.pool import lost


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ProcessExpired("gone", code=-signal.SIGSEGV), "was killed by SIGSEGV."),
        (
            ProcessExpired("gone", code=-signal.SIGKILL),
            "was killed by SIGKILL. Out of memory is the usual cause of SIGKILL.",
        ),
        (ProcessExpired("gone", code=3), "ended with exit code 3."),
        (ProcessExpired("gone"), "ended with exit code 0."),
        (RuntimeError("broken"), "ended without a word (RuntimeError: broken)."),
    ],
)
def test_the_reason_is_told(error: BaseException, words: str) -> None:
    found = lost(error)
    assert (found.code, found.retryable) == ("worker_lost", False)
    assert found.message == f"The process that did this work {words}"


def test_a_full_disk_is_no_lost_worker() -> None:
    found = lost(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert (found.code, found.retryable) == ("storage", True)
    assert "Disk quota exceeded" in found.message
