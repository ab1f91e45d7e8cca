from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_core.report.scale import fit_scale

magnitudes = st.floats(1e-12, 1e12)


def test_positive_values_stand_at_their_logarithms_with_powers_of_ten_as_ticks():
    scale = fit_scale([1e-6, 0.3])
    assert scale.place(1e-3) == pytest.approx(-3)
    assert set(scale.axis()["ticktext"]) <= {f"10<sup>{k}</sup>" for k in range(-7, -3)} | {
        "0.001",
        "0.01",
        "0.1",
        "1",
    }
    assert len(scale.axis()["ticktext"]) >= 3


def test_far_from_zero_a_signed_axis_is_logarithmic():
    scale = fit_scale([-1e-4, 10.0])
    assert scale.place(10.0) - scale.place(1.0) == pytest.approx(1, abs=1e-3)
    assert scale.place(-1e-4) == -scale.place(1e-4)
    assert "0" in scale.axis()["ticktext"]


def test_within_one_power_of_ten_there_are_ticks_too():
    axis = fit_scale([0.011, 0.019]).axis()
    assert axis["ticktext"]
    assert fit_scale([-0.3, -0.2]).axis()["ticktext"]


@given(st.lists(magnitudes | magnitudes.map(lambda v: -v) | st.just(0.0), max_size=8))
def test_order_is_kept_and_everything_is_on_the_axis(values):
    scale = fit_scale(values)
    low, high = scale.ends
    places = [scale.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(low <= place <= high for place in places)
    axis = scale.axis()
    assert len(axis["tickvals"]) <= 7
    assert all(low <= tick <= high and math.isfinite(tick) for tick in axis["tickvals"])
    assert axis["tickvals"] == sorted(set(axis["tickvals"]))
