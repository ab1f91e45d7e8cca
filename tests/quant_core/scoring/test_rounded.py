"""Who rounds with samples is not scored on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quant_core.calibration import Samples
from quant_core.pipeline import quantize
from quant_core.quantizers import quantize_weight
from quant_core.scoring.rounded import apart, further_folds, tellers
from quant_core.spec import QuantizeSpec, SensitivityMethod, SensitivityTable
from tests.quant_core.test_first_use import CHAIN, write

SAMPLES = Samples(inputs={"x": np.arange(30.0)})
ROUNDED = {"layer": {4: quantize_weight(np.ones((3, 2), np.float32), 4, 1)}}


def values(samples: Samples) -> set[float]:
    return set(samples.inputs["x"].tolist())


def test_codes_are_scored_on_samples_that_they_have_not_seen() -> None:
    seen, unseen = apart(SAMPLES, QuantizeSpec(size=0.5))
    assert values(seen) | values(unseen) == values(SAMPLES)
    assert not values(seen) & values(unseen)
    assert (seen.count, unseen.count) == (20, 10)


def test_codes_that_see_nothing_are_scored_on_all_samples() -> None:
    assert apart(SAMPLES, QuantizeSpec(size=0.5, rounding="nearest")) == (SAMPLES, SAMPLES)


@pytest.mark.parametrize("method", ["gauss_newton", "hawq_v2", "hutch++", "hawq", "gnb", "fisher"])
def test_curvature_is_that_of_all_samples(method: SensitivityMethod) -> None:
    spec = QuantizeSpec(size=0.5, sensitivity=method)
    _, unseen = apart(SAMPLES, spec)
    assert tellers(SAMPLES, unseen, spec) is SAMPLES


@pytest.mark.parametrize("method", ["output", "interaction", "pqi", "kfac"])
def test_what_codes_do_is_told_by_samples_that_they_have_not_seen(method: SensitivityMethod) -> None:
    spec = QuantizeSpec(size=0.5, sensitivity=method)
    _, unseen = apart(SAMPLES, spec)
    assert tellers(SAMPLES, unseen, spec) is unseen


def test_a_single_sample_does_both() -> None:
    one = SAMPLES.take(np.array([4]))
    assert apart(one, QuantizeSpec(size=0.5, effort="fast")) == (one, one)


@pytest.mark.parametrize("batch", [None, 3])
def test_two_batches_are_enough_to_share(batch: int | None) -> None:
    fewest = 2 * (batch or 1)
    enough = Samples({"x": np.arange(float(fewest))}, None, batch)
    seen, unseen = apart(enough, QuantizeSpec(size=0.5))
    assert (seen.count, unseen.count) == (fewest // 2, fewest // 2)
    if batch is not None:
        few = Samples({"x": np.arange(float(batch))}, None, batch)
        assert apart(few, QuantizeSpec(size=0.5)) == (few, few)


def test_at_the_effort_best_every_sample_scores_codes_that_have_not_seen_it() -> None:
    spec = QuantizeSpec(size=0.5, effort="best")
    first = apart(SAMPLES, spec)
    folds = (first, *further_folds(*first, ROUNDED, spec))
    assert [seen.count for seen, _ in folds] == [20, 20, 20]
    assert sorted(value for _, unseen in folds for value in values(unseen)) == sorted(values(SAMPLES))
    for seen, unseen in folds:
        assert values(seen) | values(unseen) == values(SAMPLES)
        assert not values(seen) & values(unseen)


@pytest.mark.parametrize("asked", [{"effort": "balanced"}, {"effort": "best", "sensitivity": "gauss_newton"}])
def test_other_efforts_and_scores_that_are_not_measured_make_do_with_one_fold(
    asked: dict[str, str],
) -> None:
    spec = QuantizeSpec.model_validate({"size": 0.5} | asked)
    assert further_folds(*apart(SAMPLES, spec), ROUNDED, spec) == ()


def test_no_folds_where_nothing_stands_apart_and_where_samples_abound() -> None:
    spec = QuantizeSpec(size=0.5, effort="best")
    assert further_folds(SAMPLES, SAMPLES, ROUNDED, spec) == ()
    one = SAMPLES.take(np.array([0]))
    assert further_folds(one, SAMPLES.take(np.array([1])), ROUNDED, spec) == ()
    many = Samples(inputs={"x": np.arange(96.0)})
    assert further_folds(*apart(many, spec), ROUNDED, spec) == ()


def test_no_folds_where_codes_would_take_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = QuantizeSpec(size=0.5, effort="best")
    monkeypatch.setattr("quant_core.scoring.rounded._MOST_CODES", 6)
    assert len(further_folds(*apart(SAMPLES, spec), ROUNDED, spec)) == 2
    monkeypatch.setattr("quant_core.scoring.rounded._MOST_CODES", 5)
    assert further_folds(*apart(SAMPLES, spec), ROUNDED, spec) == ()


@pytest.mark.parametrize(
    ("effort", "given", "scored"), [("balanced", 160, 40), ("fast", 160, 32), ("best", 80, 60)]
)
def test_jobs_score_on_as_many_samples_as_their_effort_takes(
    tmp_path: Path, effort: str, given: int, scored: int
) -> None:
    feeds = {"x": np.random.default_rng(1).standard_normal((given, 4)).astype(np.float32)}
    paths = write(tmp_path, CHAIN, feeds, w=(4, 4), r=(4, 4))
    untuned = {"rounding": "gptq", "follow": False} if effort == "best" else {}
    spec = QuantizeSpec.model_validate({"effective_bits": 3, "effort": effort} | untuned)
    report = quantize(*paths, spec, tmp_path / "out")
    table = SensitivityTable.model_validate_json((tmp_path / "out" / "sensitivity.json").read_text())
    assert table.samples == scored
    assert {trial.samples for trial in report.trials} == {scored}
    if effort == "fast":
        assert not report.refinement
