"""Codes that followed are left where outputs lie further off by more than chance."""

import numpy as np
import pytest

from quant_core.quantizers import Simulation
from quant_core.quantizers.following.outcome import leads_astray
from tests.quant_core.quantizers.following.test_look_trial import Trial


def astray(trial, before, after):
    networks = (Simulation(trial.model, trial.layers, trial.codes[look], {}, ()) for look in (before, after))
    return leads_astray(trial.network, *networks, trial.samples)


@pytest.mark.parametrize(("few", "many", "wrong"), [(6, 3, True), (3, 6, False), (4, 4, False)])
def test_errors_of_the_outputs_decide(few, many, wrong):
    assert astray(Trial(few, many), "few", "many") == wrong


@pytest.mark.parametrize(
    ("plain", "logarithm", "wrong"),
    [
        ([-1, -1.1, -0.9, -1], [-1, -1.1, -0.9, -1], True),
        ([-9, 0.1, 0.1, 0.1], [-9, 0.1, 0.1, 0.1], False),  # one answer that tips over
        ([-1, -1.1, -0.9, -1], [0.1, 0.2, 0.1, 0.1], False),
        ([0.1, 0.2, 0.1, 0.1], [-1, -1.1, -0.9, -1], False),
    ],
)
def test_more_than_one_answer_must_be_worse(plain, logarithm, wrong, monkeypatch):
    falls = np.array([plain, logarithm], np.float64)
    monkeypatch.setattr("quant_core.quantizers.following.outcome.error_falls", lambda *_: falls)
    assert astray(Trial(), "few", "many") == wrong
