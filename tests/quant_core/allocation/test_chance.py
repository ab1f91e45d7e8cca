"""Scores within chance follow what rounding changes the weight; all others stay as they were measured."""

from __future__ import annotations

import pytest

from quant_core.allocation.chance import beyond_chance, chance_of
from quant_core.spec import LayerSensitivity

ERRORS = {2: 4.0, 4: 0.3, 6: 0.02, 8: 0.001}


def row(scores: dict[int, float], errors: dict[int, float] | None = None) -> LayerSensitivity:
    return LayerSensitivity(
        name="fc",
        weight="w",
        parameters=10,
        perturbation=ERRORS if errors is None else errors,
        sensitivity=scores,
    )


LARGE = row({2: 0.5, 4: 0.03, 6: 0.002, 8: 0.0001})
NOISY = row({2: -3e-7, 4: 2e-7, 6: -4e-7, 8: 1e-8})


def test_the_most_negative_score_tells_chance_within_bounds():
    assert chance_of([LARGE, NOISY]) == 4e-7
    assert chance_of([LARGE]) == pytest.approx(0.5e-9)
    assert chance_of([LARGE, row({2: -0.2, 8: 0.1})]) == pytest.approx(0.5e-3)
    assert chance_of([]) == 0


def test_scores_that_are_no_numbers_stay_and_tell_nothing():
    broken = row({2: float("inf"), 4: float("nan"), 6: -4e-7, 8: 1.0})
    assert chance_of([broken]) == 4e-7
    found = beyond_chance(broken, 4e-7)
    assert found[2] == float("inf")
    assert found[4] != found[4]
    assert found[6] > 0


def test_within_chance_more_bits_lose_less():
    found = beyond_chance(NOISY, 4e-7)
    assert found == pytest.approx({bits: 4e-7 * error / 4 for bits, error in ERRORS.items()})
    assert min(found, key=found.__getitem__) == 8


def test_scores_above_chance_stay():
    assert beyond_chance(LARGE, 4e-7) == LARGE.sensitivity
    part = beyond_chance(row({2: 0.1, 4: 5e-7, 6: 3e-7, 8: 4e-7}), 4e-7)
    assert part == pytest.approx({2: 0.1, 4: 5e-7, 6: 4e-7 * 0.005, 8: 4e-7 * 0.00025})


@pytest.mark.parametrize("errors", [dict.fromkeys(ERRORS, 0.0), {}], ids=["held exactly", "unknown"])
def test_where_rounding_changes_nothing_scores_stay(errors: dict[int, float]):
    scores = {2: 0.0, 4: 0.0, 8: 0.0}
    assert beyond_chance(row(scores, errors), 1e-6) == scores


def test_float_stays_as_it_is():
    assert beyond_chance(row({2: 0.0, 8: 0.0, 32: 0.0}), 1e-6)[32] == 0
