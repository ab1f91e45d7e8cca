"""What is freed leaves the process."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import pytest

from quant_core.processors.heap import trim_heap

_BLOCKS, _BYTES = 3000, 60_000  # small enough for the heap, whatever its limits have become


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc"
)
def test_freed_memory_below_what_is_still_held_is_given_back() -> None:
    blocks = [ctypes.create_string_buffer(b"1" * _BYTES) for _ in range(_BLOCKS)]
    held = blocks.pop()
    blocks.clear()
    kept = _resident()
    trim_heap()
    assert kept - _resident() > _BLOCKS * _BYTES // 2
    assert held.raw[:1] == b"1"


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", None)
    trim_heap()
