import itertools
import math

import pytest
import torch

from quant_core.calibration import RangeWatch
from quant_core.sensitivity import Objective, Term
from quant_core.trials import PlanMeter


def test_whole_plans_are_measured_as_numpy_does(tiny):
    for widths in itertools.product((2, 4, 32), repeat=3):
        bits = dict(zip(tiny.names, widths, strict=True))
        assert tiny.meter.loss(bits).mean == pytest.approx(tiny.loss(bits), rel=1e-4, abs=1e-9)


def test_neighbours_cost_less_work_but_give_the_same(tiny):
    plan = dict(zip(tiny.names, (2, 8, 3), strict=True))
    moves = [{name: b} for name in tiny.names for b in (*tiny.bits, 32)]
    moves.append({tiny.names[0]: 4, tiny.names[2]: 32})
    for move, found in zip(moves, tiny.meter.around(plan, moves), strict=True):
        assert found == pytest.approx(tiny.loss(plan | move), rel=1e-4, abs=1e-9)


def test_better_means_better_on_the_same_samples(tiny):
    coarse, fine = (tiny.meter.loss(dict.fromkeys(tiny.names, b)) for b in (2, 4))
    assert fine.beats(coarse, errors=2)
    assert not coarse.beats(fine, errors=0)
    assert not fine.beats(fine, errors=0)
    assert math.isfinite(fine.stderr)


def test_a_watch_is_shown_the_float_run(tiny):
    watch = RangeWatch(["x", "y"])
    arguments = tiny.program, tiny.layers, tiny.objective, tiny.meter.batches, tiny.rounded
    meter = PlanMeter(*arguments, watch=watch)
    feeds = [batch.feeds["x"] for batch in meter.batches]
    assert watch.ranges["x"].count == sum(x.numel() for x in feeds)
    largest = max(float(tiny.program.evaluate({"x": x})["y"].max()) for x in feeds)
    assert watch.ranges["y"].maximum == pytest.approx(largest)
    bits = dict.fromkeys(tiny.names, 4)
    assert meter.loss(bits).mean == tiny.meter.loss(bits).mean


def test_a_loss_may_be_taken_on_what_a_graph_reads(tiny):
    """As where an output is the softmax of an input."""
    objective = Objective((*tiny.objective.terms, Term("p", "x", "kl")))
    meter = PlanMeter(tiny.program, tiny.layers, objective, tiny.meter.batches, tiny.rounded)
    bits = dict.fromkeys(tiny.names, 4)
    assert meter.loss(bits).mean == pytest.approx(tiny.meter.loss(bits).mean)


def test_every_fold_is_measured_with_codes_of_its_own(tiny):
    """The second fold's codes of 3, 4 and 8 bits are those that the first has at 2, 3 and 4."""
    plan, coarser = (dict(zip(tiny.names, bits, strict=True)) for bits in ((4, 8, 3), (3, 4, 2)))
    size = tiny.meter.batches[0].size
    expected = torch.cat([tiny.meter.loss(plan).increase[:size], tiny.meter.loss(coarser).increase[size:]])
    found = tiny.in_folds.loss(plan).increase
    assert torch.allclose(found, expected)
    unmoved, moved = tiny.in_folds.around({**plan, tiny.names[0]: 2}, [{}, {tiny.names[0]: 4}])
    assert moved == pytest.approx(float(expected.mean()), rel=1e-5)
    assert unmoved != pytest.approx(moved, rel=1e-2)
