"""Large tensors are given the pages of those that were freed before them, and these go back in the end."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
from contextlib import nullcontext
from pathlib import Path
import torch
from quant_core.executor.reused_memory import reused_memory

torch.set_num_threads(1)
size = 12 << 20  # 48 MiB

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def faults(context):
    with context:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(size).add_(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.ones(size)
anew, held = faults(nullcontext()), resident()
kept = faults(reused_memory())
print(anew, kept, (resident() - held) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
def test_what_was_freed_is_used_again_and_then_given_back() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, check=True)
    anew, kept, left = map(int, found.stdout.split())
    assert kept < 0.3 * anew
    assert left < 16
