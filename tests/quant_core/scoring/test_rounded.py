"""Who rounds with samples is not scored on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quant_core.calibration import Samples
from quant_core.pipeline import quantize
from quant_core.scoring.rounded import apart
from quant_core.spec import QuantizeSpec, SensitivityTable
from tests.quant_core.test_first_use import CHAIN, write

SAMPLES = Samples(inputs={"x": np.arange(30.0)})


def values(samples: Samples) -> set[float]:
    return set(samples.inputs["x"].tolist())


def test_codes_are_scored_on_samples_that_they_have_not_seen() -> None:
    seen, unseen = apart(SAMPLES, QuantizeSpec(size=0.5))
    assert values(seen) | values(unseen) == values(SAMPLES)
    assert not values(seen) & values(unseen)
    assert (seen.count, unseen.count) == (20, 10)


def test_codes_that_see_nothing_are_scored_on_all_samples() -> None:
    assert apart(SAMPLES, QuantizeSpec(size=0.5, rounding="nearest")) == (SAMPLES, SAMPLES)


def test_a_single_sample_does_both() -> None:
    one = SAMPLES.take(np.array([4]))
    assert apart(one, QuantizeSpec(size=0.5, effort="fast")) == (one, one)


@pytest.mark.parametrize(("effort", "scored"), [("balanced", 40), ("fast", 32)])
def test_a_fast_job_scores_on_some_dozens_of_samples_and_refines_no_plan(
    tmp_path: Path, effort: str, scored: int
) -> None:
    feeds = {"x": np.random.default_rng(1).standard_normal((160, 4)).astype(np.float32)}
    paths = write(tmp_path, CHAIN, feeds, w=(4, 4), r=(4, 4))
    spec = QuantizeSpec.model_validate({"effective_bits": 3, "effort": effort})
    report = quantize(*paths, spec, tmp_path / "out")
    table = SensitivityTable.model_validate_json((tmp_path / "out" / "sensitivity.json").read_text())
    assert table.samples == scored
    assert {trial.samples for trial in report.trials} == {scored}
    if effort == "fast":
        assert not report.refinement
