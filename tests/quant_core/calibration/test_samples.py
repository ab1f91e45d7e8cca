"""Samples as tensors."""

import numpy as np
import pytest
import torch

from quant_core.calibration import Samples


def test_images_have_their_channels_last_where_that_is_asked():
    images = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    samples = Samples({"image": images, "ids": np.arange(6).reshape(2, 3)}, labels=np.array([4, 1]))
    plain, fast = samples.feeds(), samples.feeds(fast=True)
    for name, array in samples.inputs.items():
        np.testing.assert_array_equal(plain[name], array)
        np.testing.assert_array_equal(fast[name], array)
    assert plain["image"].is_contiguous()
    assert fast["image"].is_contiguous(memory_format=torch.channels_last)
    assert samples.classes().tolist() == [4, 1]
    assert Samples({"image": images}).classes() is None


def test_what_lies_turned_in_memory_is_taken_as_it_reads():
    turned = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::-1]
    np.testing.assert_array_equal(Samples({"x": turned}).feeds()["x"], turned)


def test_copies_are_counted_once():
    images, ids = np.zeros((4, 2), np.float32), np.arange(4)
    assert Samples({"image": images}).distinct == 1
    assert Samples({"image": images, "id": ids}).distinct == 4
    assert Samples({"id": np.array([3, 1, 3])}).distinct == 2


@pytest.mark.parametrize(
    ("batch", "count", "first", "spread"),
    [
        (None, 1, [0], [0]),
        (None, 3, [0, 1, 2], [0, 4, 8]),
        (None, 99, [*range(12)], [*range(12)]),
        (4, 1, [0, 1, 2, 3], [0, 1, 2, 3]),
        (4, 11, [*range(8)], [0, 1, 2, 3, 4, 5, 6, 7]),
        (2, 6, [*range(6)], [0, 1, 4, 5, 8, 9]),
    ],
)
def test_what_a_graph_takes_at_once_stays_together(batch, count, first, spread):
    rows = np.arange(12)
    samples = Samples({"x": rows[:, None]}, labels=rows, batch=batch)
    for found, expected in ((samples.first(count), first), (samples.spread(count), spread)):
        assert found.inputs["x"][:, 0].tolist() == found.labels.tolist() == expected
        assert found.batch == batch
