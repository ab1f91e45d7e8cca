"""Samples for tuning: mixtures lie between two of a batch, and large networks get fewer samples and updates."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from quant_core.calibration import Samples
from quant_core.quantizers.tuning.tuning_samples import affordable_updates, mixed, share, with_mixtures


def test_mixtures_lie_between_two_samples_in_all_inputs_alike():
    random = np.random.default_rng(0)
    x = np.eye(40, dtype=np.float32)
    batch = mixed(Samples(inputs={"x": x, "z": 2 * x[:, None, :]}), random)
    found = batch.inputs["x"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(batch.inputs["z"][:, 0], 2 * found)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    assert ((found > 0).sum(1) <= 2).all()
    assert (found.diagonal() >= 0.5).all()
    whole = found.diagonal() == 1
    assert 10 < whole.sum() < 30


def test_tokens_and_prescribed_batches_are_left_as_they_are():
    random = np.random.default_rng(0)
    batch = Samples(inputs={"ids": np.arange(8)[:, None], "x": np.ones((8, 3), np.float32)})
    assert mixed(batch, random) is batch
    fixed = replace(batch, inputs={"x": batch.inputs["x"]}, batch=8)
    assert mixed(fixed, random) is fixed


def test_mixtures_stay_within_one_half_of_the_samples():
    samples = Samples(inputs={"x": np.eye(11, dtype=np.float32)})
    found = with_mixtures(samples, 100, np.random.default_rng(0)).inputs["x"]
    np.testing.assert_array_equal(found[10:], samples.inputs["x"])
    assert len(found) == 21
    for place, row in enumerate(found):
        assert (np.flatnonzero(row) % 2 == place % 2).all()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    assert (found[:10].max(1) < 1).any()
    assert with_mixtures(samples, 7, np.random.default_rng(0)).count == 17
    assert with_mixtures(samples, 2, np.random.default_rng(0)) is samples


def test_large_networks_get_fewer_samples_and_updates():
    samples = Samples(inputs={"x": np.zeros((100, 1))})

    def updates(macs, **changes):
        return affordable_updates([SimpleNamespace(macs=macs)], replace(samples, **changes), 32)

    assert updates(40_000_000) == (16, 600)
    assert updates(200_000_000) == (6, 600)
    assert updates(500_000_000) == (4, 375)
    assert updates(10**10) == (4, 150)
    assert updates(10**10, batch=8) == (8, 150)
    assert updates(40_000_000, inputs={"x": np.zeros((5, 1))}) == (5, 600)


@pytest.mark.parametrize(
    ("count", "batch", "judges"),
    [
        (2, None, 1),
        (11, None, 5),
        (16, None, 8),
        (24, None, 8),
        (100, None, 12),
        (384, None, 48),
        (32, 4, 16),
    ],
)
def test_enough_samples_judge(count, batch, judges):
    tuning, checking = share(Samples(inputs={"x": np.arange(count)[:, None]}, batch=batch))
    assert (tuning.count, checking.count) == (count - judges, judges)
    both = np.concatenate([tuning.inputs["x"], checking.inputs["x"]])
    np.testing.assert_array_equal(np.sort(both[:, 0]), np.arange(count))


def test_one_sample_cannot_both_tune_and_judge():
    assert share(Samples(inputs={"x": np.zeros((1, 1))})) is None
