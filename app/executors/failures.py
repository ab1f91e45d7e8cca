"""What is told of work that failed: what the user can mend, what ran out, what was lost, what is our fault."""

from __future__ import annotations

import errno
from pathlib import Path

from quant_core.errors import UserError
from quant_core.processors.heap import says_no_memory
from quant_core.spec import JobFailure


def told(error: UserError, *files: Path) -> JobFailure:
    """Say what a user can mend.

    Args:
        error: What the engine says.
        files: What it was given; users know their files by name, where the service keeps them is not theirs to know.

    Returns:
        The error, without the folders of these files.
    """
    found = JobFailure.of(error)
    folders = [f"{file.parent}/" for file in files]

    def plain(text: str) -> str:
        for folder in folders:
            text = text.replace(folder, "")
        return text

    return JobFailure(
        code=found.code,
        message=plain(found.message),
        remedy=plain(found.remedy),
        where=None if found.where is None else plain(found.where),
    )


def fault(error: Exception, work: str) -> JobFailure:
    """Say why the engine gave up, which is no fault of the user's.

    Args:
        error: What happened.
        work: What the service's log calls this piece of work.

    Returns:
        The error: memory or disk that ran out, or a fault of the engine.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or says_no_memory(error):
        return out_of_memory(str(error))
    if is_disk_full(error):
        return disk_full(f"{getattr(error, 'strerror', None) or error}.")
    return JobFailure(
        code=getattr(error, "code", "internal"),
        message=f"The engine failed: {type(error).__name__}: {error}",
        remedy=f"This is a fault of Bitwright. Please report it; the service's log has the details under {work}.",
    )


def out_of_memory(detail: str) -> JobFailure:
    """Say that there is no memory left.

    Args:
        detail: What the system says.

    Returns:
        The error.
    """
    return JobFailure(
        code="out_of_memory",
        message=f"Memory ran out. {detail}".strip(),
        remedy="Send fewer samples or a smaller model, or run the service where there is more memory.",
    )


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether there was no room for a file.

    Args:
        error: What happened.

    Returns:
        Whether the disk, a quota or the bucket is full.
    """
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def disk_full(detail: str) -> JobFailure:
    """Say that there is no room left.

    Args:
        detail: What the system says.

    Returns:
        The error.
    """
    return JobFailure(
        code="storage",
        message=f"There is no room left where the job's files are kept. {detail}",
        remedy="Have space freed in the service's data folder or storage, then send it again.",
        retryable=True,
    )


def lost(message: str) -> JobFailure:
    """Say that a process is gone.

    Args:
        message: Which, and how it ended.

    Returns:
        The error.
    """
    return JobFailure(
        code="worker_lost",
        message=message,
        remedy="Send it again; if it ends the same way, try fewer samples, and report it with the service's log.",
    )
