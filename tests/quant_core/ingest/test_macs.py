"""Arithmetic that samples take."""

from types import SimpleNamespace

import pytest

from quant_core.ingest.macs import affordable_samples


@pytest.mark.parametrize(
    ("macs", "budget", "passes", "expected"),
    [
        ((30, 70), 1000, 1, 10),
        ((30, 70), 1099, 1, 10),
        ((30, 70), 1000, 4, 2),
        ((30, 70), 99, 1, 0),
        ((0,), 50, 1, 50),
    ],
)
def test_so_many_samples_take_so_much_arithmetic(macs, budget, passes, expected):
    layers = [SimpleNamespace(macs=each) for each in macs]
    assert affordable_samples(layers, budget, passes) == expected
