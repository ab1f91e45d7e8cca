from __future__ import annotations

import math

import pytest

from quant_core.report.numbers import (
    format_bytes,
    format_count,
    format_loss,
    format_ms,
    format_seconds,
    format_share,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 KB"),
        (196_341, "196 KB"),
        (999_960, "1.00 MB"),
        (13_720_000, "13.7 MB"),
        (999_500_000, "1.00 GB"),
        (2.5e9, "2.50 GB"),
        (-2_500, "-2.50 KB"),
    ],
)
def test_bytes(value, text):
    assert format_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (432, "432"),
        (1000, "1.00 k"),
        (9_996, "10.0 k"),
        (99_960, "100 k"),
        (272_474, "272 k"),
        (999_400, "999 k"),
        (999_500, "1.00 M"),
        (41_000_000, "41.0 M"),
        (1.2e9, "1.20 G"),
    ],
)
def test_counts(value, text):
    assert format_count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0421, "42.1 µs"),
        (0.62, "620 µs"),
        (0.9996, "1.00 ms"),
        (1.314, "1.31 ms"),
        (27.5, "27.5 ms"),
        (999.5, "1.00 s"),
        (1250, "1.25 s"),
    ],
)
def test_milliseconds(value, text):
    assert format_ms(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.42, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (12.3, "12 s"),
        (59.7, "1 min 0 s"),
        (200, "3 min 20 s"),
    ],
)
def test_seconds(value, text):
    assert format_seconds(value) == text


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (None, None, "–"),
        (0.0, 0.0, "0"),
        (0.012345, None, "0.0123"),
        (4.56e-7, None, "4.56e-7"),
        (310.2, 12.4, "310 ± 12"),
        (-0.5, None, "-0.500"),
        (99_999.0, None, "100,000"),
        (1.5e9, None, "1.50e9"),
        (100_000.0, None, "1.00e5"),
        (0.001, None, "0.00100"),
        (0.000999, None, "9.99e-4"),
        (math.inf, None, "inf"),
        (math.nan, None, "nan"),
    ],
)
def test_losses(value, stderr, text):
    assert format_loss(value, stderr) == text


def test_shares():
    assert format_share(0.91634) == "91.63 %"
    assert format_share(0.18, 0) == "18 %"
