"""After memory ran out a job takes smaller batches, wherever it takes batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quant_core.preparation import prepare
from quant_core.sensitivity.cut import Cut
from quant_core.spec import QuantizeSpec
from quant_core.spec.memory_share import memory_share, with_less_memory

DATA = Path(__file__).parents[2] / "benchmarks" / "data"


def test_batches_shrink_within_the_context_alone(tmp_path: Path) -> None:
    with np.load(DATA / "cifar10_calibration.npz") as full:
        np.savez(tmp_path / "few.npz", input=full["input"][:16])

    def batch() -> int:
        return prepare(DATA / "resnet20_cifar10.onnx", tmp_path / "few.npz", QuantizeSpec()).batch_size

    usual = batch()
    with with_less_memory(0.25):
        assert memory_share() == 0.25
        assert batch() == usual // 4
        with with_less_memory(1e-9):
            assert batch() == 1
    assert memory_share() == 1


def test_samples_are_cut_smaller_whatever_made_batches_as_large_as_they_were() -> None:
    by_count, by_memory = Cut(1000, 1000, 0, clusters=1), Cut(1000, 1 << 27, 0, clusters=1)
    assert (by_count.size, by_count.with_share(0.25).size) == (32, 8)
    assert (by_memory.size, by_memory.with_share(0.25).size) == (8, 2)
    assert by_count.with_share(1) == by_count
