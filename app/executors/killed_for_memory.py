"""Whether the kernel ended processes because memory ran out: a SIGKILL alone does not tell who sent it, or why."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_COUNTERS = Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")


def killed_for_memory() -> int:
    """Count the processes of this machine, or container, that were ended because memory ran out.

    Returns:
        The number since the start of either; only how it grows tells anything.
    """
    count = 0
    for file in _COUNTERS:
        with suppress(OSError):  # another kind of system
            for line in file.read_text().splitlines():
                name, _, value = line.partition(" ")
                count += int(value) if name == "oom_kill" else 0
    return count
