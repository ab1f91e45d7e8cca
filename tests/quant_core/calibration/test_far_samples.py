"""Samples that stand for many: the farthest are among them, and weighted sums are those of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from quant_core.calibration import Samples
from quant_core.calibration.far_samples import far_samples


class Doubling:
    """A program of one inner tensor, twice its input."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.ran = 0

    def evaluate(
        self, feeds: Mapping[str, torch.Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, torch.Tensor]:
        self.ran += len(feeds["x"])
        return dict.fromkeys(outputs or (), 2 * feeds["x"])


def drawn(count: int, batch: int | None = None) -> Samples:
    values = np.random.default_rng(0).uniform(-1, 1, (count, 6)).astype(np.float32)
    return Samples({"x": values}, np.arange(count), batch)


def test_the_samples_that_reach_furthest_stand_for_themselves():
    samples = drawn(100)
    samples.inputs["x"][[7, 93], [2, 0]] = 50, -40
    program = Doubling()
    picked, times = far_samples(program, samples, ["x", "h"], 8, batch_size=16)
    assert program.ran == 100
    assert picked.count == times.size == 8
    assert times.sum() == 100
    alone = set(picked.labels[times == 1])
    assert {7, 93} <= alone
    assert len(alone) == 4
    assert set(times[times > 1]) == {24}
    assert list(picked.labels) == sorted(picked.labels)
    np.testing.assert_array_equal(picked.inputs["x"], samples.inputs["x"][picked.labels])


def test_tensors_that_never_go_below_zero_ask_for_no_sample():
    samples = drawn(40)
    np.abs(samples.inputs["x"], out=samples.inputs["x"])
    samples.inputs["x"][[11, 30]] += 5
    picked, times = far_samples(Doubling(), samples, ["x"], 4, batch_size=40)
    assert set(picked.labels[times == 1]) == {11, 30}


def test_few_samples_are_all_run_and_nothing_else():
    samples, program = drawn(8), Doubling()
    picked, times = far_samples(program, samples, ["x"], 8, batch_size=4)
    assert picked is samples
    assert times.tolist() == [1] * 8
    assert program.ran == 0


def test_samples_of_one_run_stay_together():
    samples = drawn(30, batch=3)
    samples.inputs["x"][13] = 9
    picked, times = far_samples(Doubling(), samples, ["x"], 14, batch_size=64)
    assert picked.count == 12
    assert times.sum() == 30
    assert (picked.labels.reshape(-1, 3) % 3 == [0, 1, 2]).all()
    assert 13 in picked.labels
    assert times[picked.labels == 13] == 1


def test_a_sample_of_a_run_counts_by_the_tensor_that_it_reaches_furthest_in():
    samples = drawn(30, batch=3)
    small = np.zeros((30, 6), np.float32)
    small[22] = 0.01  # far below what x holds, and all that this tensor ever reaches
    samples = Samples({"x": samples.inputs["x"], "z": small}, np.arange(30), 3)
    picked, times = far_samples(Doubling(), samples, ["x", "z"], 18, batch_size=64)
    assert times[picked.labels == 22] == 1


@pytest.mark.parametrize("value", [torch.tensor(7.0), torch.arange(5.0)])
def test_tensors_without_an_axis_of_samples_are_the_same_for_all(value):
    class Fixed(Doubling):
        def evaluate(
            self, feeds: Mapping[str, torch.Tensor], outputs: Sequence[str] | None = None
        ) -> dict[str, torch.Tensor]:
            return dict.fromkeys(outputs or (), value)

    samples = drawn(40)
    samples.inputs["x"][[11, 30]] += 5
    picked, times = far_samples(Fixed(), samples, ["x", "h"], 12, batch_size=8)
    assert picked.count == 12
    assert {11, 30} <= set(picked.labels[times == 1])


def test_one_sample_stands_for_all():
    picked, times = far_samples(Doubling(), drawn(9), ["x"], 1, batch_size=9)
    assert picked.count == 1
    assert times.tolist() == [9]
