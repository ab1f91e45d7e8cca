"""How many processors this process may keep busy: those it may run on, and what its control group grants."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_MEMBERSHIP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def available_processors(membership: Path = _MEMBERSHIP, groups: Path = _GROUPS) -> int:
    """Count the processors this process may use.

    A container that is granted two of 64 processors sees all 64; as many threads would be stopped most of the time.

    Args:
        membership: What the kernel tells of the control groups of this process.
        groups: Where these are mounted.

    Returns:
        The processors that it may run on, or the time that its control groups grant (`cpu.max`, or
        `cpu.cfs_quota_us` of the first version), rounded up, where that is less.
    """
    return min([_affinity(), *(max(1, math.ceil(grant)) for grant in _grants(membership, groups))])


def limit_threads() -> None:
    """Have libraries that are loaded from now on start as many threads as are granted, unless the user says."""
    granted = available_processors()
    if granted < _affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(granted))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _grants(membership: Path, groups: Path) -> Iterator[float]:
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = groups / "cpu" if controllers else groups
        # A container may be told of a place that it does not see; its own is the top then.
        group = top / place.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top) and (grant := _grant(folder)) is not None:
                yield grant


def _grant(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None
