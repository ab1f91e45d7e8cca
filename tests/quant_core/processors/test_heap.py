"""What is freed leaves the process, and what says that there is nothing left is understood."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import pytest
import torch

from quant_core.processors.heap import says_no_memory, trim_heap

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


def test_allocators_are_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert says_no_memory(caught.value)
    for text in (
        "std::bad_alloc",
        "Failed to allocate memory for requested buffer of size 8",  # onnxruntime's arena
        "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
        "CUDA out of memory.",
    ):
        assert says_no_memory(RuntimeError(text)), text
    assert not says_no_memory(RuntimeError("a layer remembers nothing"))
