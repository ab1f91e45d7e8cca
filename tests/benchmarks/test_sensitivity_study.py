"""The study's own arithmetic; what it measures is in docs/sensitivity.md."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.sensitivity import Interactions

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.sensitivity_study import measurements, setting  # noqa: E402 - the benchmarks are not an installed package
from benchmarks.sensitivity_study.drawing import draw  # noqa: E402
from benchmarks.sensitivity_study.fresh import Agreement  # noqa: E402
from benchmarks.sensitivity_study.measurements import Cost, Prediction, Truth  # noqa: E402
from benchmarks.sensitivity_study.results import Result  # noqa: E402

LAYERS, WIDTHS = 4, len(setting.BITS)
COST = Cost(seconds=1.0, megabytes=2.0, samples=3, stopped="all samples used")


def interactions() -> Interactions:
    rng = np.random.default_rng(0)
    pairs = rng.normal(0, 0.1, (LAYERS, WIDTHS, LAYERS, WIDTHS))
    pairs += pairs.transpose(2, 3, 0, 1)
    pairs[np.arange(LAYERS), :, np.arange(LAYERS), :] = 0
    alone = rng.random((LAYERS, WIDTHS))
    return Interactions(
        tuple("abcd"), alone, alone / 10, alone, alone / 10, pairs, np.abs(pairs) / 2, 8, "all samples used"
    )


def test_predicts_plans_as_the_product_does() -> None:
    known = interactions()
    told = Prediction(known.increase, known.pairs, known.trusted_pairs, COST)
    for choice in ([0, 1, 2, 3], [4, 4, 0, 0]):
        assert told.plan(np.array(choice)) == pytest.approx(known.plan_loss(choice))


def test_plans_do_not_depend_on_how_many_there_are() -> None:
    plans = [measurements._random_plan(number, 30) for number in range(50)]
    np.testing.assert_array_equal(plans[7], measurements._random_plan(7, 30))
    assert len({tuple(plan) for plan in plans}) == 50
    # From mild to harsh: the mean bits of a plan spread far more than those of independent draws (0.4) would.
    assert np.std([np.array(setting.BITS)[plan].mean() for plan in plans]) > 0.6


def test_rounded_weights_survive_the_file(tmp_path: Path) -> None:
    codes = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
    bias = CorrectedBias("b", np.ones(3, np.float32))
    rounded = {
        "/a/Conv": {4: QuantizedWeight(codes, np.ones(3, np.float32), 0, 4, bias)},
        "table": {8: QuantizedWeight(codes, np.float32(2).reshape(()), None, 8)},
    }
    setting._save(tmp_path / "rounded.npz", rounded)
    read = setting._load(tmp_path / "rounded.npz")
    for name, row in rounded.items():
        for bits, weight in row.items():
            found = read[name][bits]
            assert (found.axis, found.bits) == (weight.axis, weight.bits)
            for key, values in weight.stand_ins("w").items():
                np.testing.assert_array_equal(found.stand_ins("w")[key], values)
    assert read["table"][8].bias is None


def test_table_and_picture_say_what_was_found() -> None:
    known = interactions()
    plans = np.stack([measurements._random_plan(number, LAYERS) for number in range(20)])
    losses = np.array([known.increase[np.arange(LAYERS), plan].sum() for plan in plans])
    truth = Truth(known.increase, plans, 2 * losses, {3: 0.5, 4: 0.25})
    result = Result("net", "output", truth, Prediction(known.increase, None, None, COST), {3: 0.1, 4: 0.05})
    assert result.over_layers == pytest.approx(1)
    assert result.over_plans == pytest.approx(1)
    assert result.size == pytest.approx((0.5, 0.5, 0.5))
    picture = ET.fromstring(draw([result]))
    dots = [path.get("d", "") for path in picture.iter("{http://www.w3.org/2000/svg}path")]
    assert max(d.count("h0") for d in dots) == 20


def agreement(samples: int, variation: float, layers: int = 2000) -> Agreement:
    """Predictions and measurements of layers that differ by nothing but the samples that were drawn."""
    rng = np.random.default_rng(0)
    shape = 1 / variation**2  # of a gamma distribution with mean 1
    drawn = rng.gamma(shape, variation**2, (2, layers, samples))
    mean, error = drawn.mean(2), drawn.std(2, ddof=1) / samples**0.5
    return Agreement(
        *(array.tolist() for array in (mean[0], error[0], mean[1], error[1])), (1, samples, samples), 1.0
    )


def test_as_many_samples_as_are_said_to_be_needed_put_two_errors_at_25_percent() -> None:
    variation = 1.2
    enough = agreement(round(128 * variation**2), variation)
    assert enough.close == pytest.approx(0.95, abs=0.02)
    assert enough.explained > enough.close
    few = agreement(10, variation)
    assert few.close < 0.5
    assert few.explained > 0.85  # errors from ten samples are a little too small
    assert enough.variation == pytest.approx(variation, rel=0.05)
    assert np.sqrt(np.mean(enough.errors_off**2)) == pytest.approx(1, abs=0.05)
    cells = [cell.strip() for cell in enough.row("net").strip("|").split("|")]
    assert cells[3] == f"{enough.close:.0%}"
    assert float(cells[8]) == pytest.approx(128 * variation**2, rel=0.1)
