"""Who rounds with samples is not scored on them, and a fast job is not scored on more than others."""

from __future__ import annotations

import numpy as np
import pytest

from quant_core.analysis import apart
from quant_core.calibration import Samples
from quant_core.spec import QuantizeSpec

SAMPLES = Samples(inputs={"x": np.arange(30.0)})


def values(samples: Samples) -> set[float]:
    return set(samples.inputs["x"].tolist())


def test_codes_are_scored_on_samples_that_they_have_not_seen() -> None:
    seen, unseen = apart(SAMPLES, QuantizeSpec(size=0.5))
    assert values(seen) | values(unseen) == values(SAMPLES)
    assert not values(seen) & values(unseen)
    assert (seen.count, unseen.count) == (20, 10)


@pytest.mark.parametrize(("effort", "scored"), [("balanced", 30), ("fast", 10)])
def test_codes_that_see_nothing_are_scored_on_all_samples_unless_it_must_be_fast(effort, scored) -> None:
    rounding, scoring = apart(SAMPLES, QuantizeSpec(size=0.5, effort=effort, rounding="nearest"))
    assert rounding is SAMPLES  # so that nothing is rounded again with more
    assert scoring.count == scored


def test_a_single_sample_does_both() -> None:
    one = SAMPLES.take(np.array([4]))
    assert apart(one, QuantizeSpec(size=0.5, effort="fast")) == (one, one)
