from __future__ import annotations

import numpy as np
import pytest

from quant_core.errors import NonFiniteError
from quant_core.verification.differences import LARGEST_DB, Difference


def test_noise_of_a_known_power_has_the_textbook_decibels():
    random = np.random.default_rng(0)
    signal = random.standard_normal((500, 200))
    noise = random.standard_normal((500, 200)) * 0.1
    difference = Difference("y")
    difference.add(signal, signal + noise)
    assert difference.sqnr_db == pytest.approx(20.0, abs=0.1)


def test_an_output_without_axes_is_one_sample():
    difference = Difference("y")
    difference.add(np.float32(3.0), np.float32(3.3))
    assert difference.samples == 1
    assert difference.sqnr_db == pytest.approx(20.0, abs=1e-4)


def test_infinity_in_the_same_place_says_nothing_but_elsewhere_is_an_error():
    masked = np.array([[1.0, -np.inf]])
    difference = Difference("y")
    difference.add(masked, masked * 1.0)
    assert difference.sqnr_db == LARGEST_DB
    with pytest.raises(NonFiniteError, match="y: "):
        difference.add(masked, np.array([[1.0, 1.0]]))
    with pytest.raises(NonFiniteError):
        difference.add(np.array([[np.nan]]), np.array([[np.nan]]))


def test_a_single_value_a_sample_is_judged_over_all_samples():
    values = np.random.default_rng(3).standard_normal((40, 1))
    noisy = values + 0.05 * np.random.default_rng(4).standard_normal((40, 1))  # some change their sign
    found = Difference("score")
    for start in range(0, 40, 8):
        found.add(values[start : start + 8], noisy[start : start + 8])
    cosine = (values * noisy).sum() / (np.linalg.norm(values) * np.linalg.norm(noisy))
    assert found.mean_cosine == pytest.approx(cosine)
    same = Difference("score")
    same.add(np.zeros((4, 1)), np.zeros((4, 1)))
    assert same.mean_cosine == 1.0
