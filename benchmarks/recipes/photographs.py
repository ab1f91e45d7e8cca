"""Decode image files with Pillow, fetched beside the environment because only the zoo needs it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks.recipes.packages import fetch_wheel


def pillow(cache: Path) -> Any:
    """Give Pillow's `Image` module.

    Args:
        cache: Folder that keeps downloads between runs.

    Returns:
        The module `PIL.Image`.
    """
    folder = str(fetch_wheel("pillow==12.0.0", cache))
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("PIL.Image")
