"""One table of several folds."""

from __future__ import annotations

import numpy as np
import pytest

from quant_core.scoring.cross_fitted import cross_fitted
from quant_core.spec import LayerSensitivity, SensitivityTable


def table(values: np.ndarray, **more: object) -> SensitivityTable:
    """What a fold of these increases at 2 and 3 bits would tell."""
    count = len(values)
    errors = values.std(0, ddof=1) / count**0.5
    row = LayerSensitivity(
        name="layer",
        weight="w",
        parameters=6,
        trace=float(values[:, 0].sum()),
        perturbation={2: float(values[0, 0]), 32: 0.0},
        sensitivity={2: float(values[:, 0].mean()), 3: float(values[:, 1].mean()), 32: 0.0},
        sensitivity_stderr={2: float(errors[0]), 3: float(errors[1]), 32: 0.0},
    )
    return SensitivityTable(
        method="output", loss="kl", samples=count, probes=count, seed=0, layers=(row.model_copy(update=more),)
    )


def test_the_mean_is_that_over_all_samples_and_its_error_shrinks_accordingly() -> None:
    values = np.random.default_rng(0).exponential(size=(3000, 2))
    parts = np.split(values, [500, 1400])
    found = cross_fitted([table(part) for part in parts])
    (row,) = found.layers
    assert found.samples == 3000
    assert row.sensitivity[2] == pytest.approx(values[:, 0].mean())
    assert row.sensitivity_stderr is not None
    assert row.sensitivity_stderr[3] == pytest.approx(values[:, 1].std() / 3000**0.5, rel=0.05)
    assert row.sensitivity[32] == 0


def test_a_width_that_one_fold_cannot_score_is_left_out() -> None:
    values = np.random.default_rng(1).exponential(size=(8, 2))
    broken = table(values[4:], sensitivity={3: 1.0, 32: 0.0}, trace=None)
    (row,) = cross_fitted([table(values[:4]), broken]).layers
    assert set(row.sensitivity) == {3, 32}
    assert row.trace is None


def test_one_table_stays_as_it_is() -> None:
    one = table(np.ones((3, 2)))
    assert cross_fitted([one]) is one
