"""What is compared on the zoo: samples that made a file never judge it, and every float output is judged."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.zoo_files import decibels, split


@pytest.mark.parametrize(("count", "used", "judges"), [(9, 4, 5), (100, 32, 16)])
def test_samples_that_made_a_file_never_judge_it(count, used, judges, tmp_path):
    np.savez(tmp_path / "samples.npz", x=np.arange(count), labels=np.arange(count))
    path, others = split(tmp_path / "samples.npz", tmp_path / "kept")
    with np.load(path) as held:
        seen = {name: held[name] for name in held.files}
    assert set(others) == {"x"}
    assert (len(seen["x"]), len(others["x"])) == (used, judges)
    assert np.array_equal(seen["x"], seen["labels"])
    assert not set(seen["x"].tolist()) & set(others["x"].tolist())


def test_every_float_output_is_judged_over_all_runs():
    reference = [
        [np.array([3.0]), np.array([1]), np.array([1.0])],
        [np.array([4.0]), np.array([1]), np.array([2.0])],
    ]
    found = [
        [np.array([3.5]), np.array([2]), np.array([1.0])],
        [np.array([4.0]), np.array([2]), np.array([2.0])],
    ]
    first, second = decibels(reference, found)
    assert first == pytest.approx(20)
    assert second == 200
