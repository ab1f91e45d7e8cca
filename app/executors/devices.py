"""Which devices this machine has, found out without loading torch into the service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_COUNT = "import torch; print(torch.cuda.device_count())"


def find_devices(wanted: Sequence[str]) -> tuple[str, ...]:
    """Turn the setting into devices.

    Args:
        wanted: `("auto",)` or a list of devices, which is returned as it is.

    Returns:
        Every GPU that torch can use, or `("cpu",)` where there is none.
    """
    if tuple(wanted) != ("auto",):
        return tuple(wanted)
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
        return ("cpu",)
    counted = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _COUNT], capture_output=True, text=True, timeout=120, check=False
    )
    count = int(counted.stdout) if counted.returncode == 0 else 0
    return tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)


def served_by(device: str) -> tuple[str, ...]:
    """Name what a job may ask for to be run on a device.

    Args:
        device: `cpu` or `cuda:N`; on a cluster, where nobody chooses among alike, `cpu/N` or `cuda/N`.

    Returns:
        Values of the request's `device` field.
    """
    kind, alike, _ = device.partition("/")
    if alike:
        return ("auto", kind)
    return ("auto", device, "cuda") if device.startswith("cuda") else ("auto", device)
