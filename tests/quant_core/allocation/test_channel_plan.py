"""Widths by channel, against every plan there is."""

import itertools

import numpy as np
import pytest

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.channel_plan import ChannelBits, plan_channels, told
from quant_core.allocation.file_costs import FileCosts
from quant_core.allocation.plan_problem import BYTES, EFFECTIVE_BITS, PlanProblem
from quant_core.spec import FLOAT_BITS

WIDTHS = (2, 4, 8)
COUNT = 16
APART, FUNCTION, BASE = 3.0, 5, 100


def problem_of(rng, layers=3, **more):
    names = [f"layer{at}" for at in range(layers)]
    sizes = {name: int(rng.integers(10, 40)) * COUNT for name in names}
    scores = {
        name: {
            w: float(s) for w, s in zip(WIDTHS, rng.uniform(0.5, 2) * 4.0 ** -np.array(WIDTHS), strict=True)
        }
        for name in names
    }
    files = FileCosts(BASE, {name: {w: sizes[name] * w for w in WIDTHS} for name in names}, {})
    weights = sum(sizes.values())
    costs = {EFFECTIVE_BITS: {name: {w: sizes[name] * w / weights for w in WIDTHS} for name in names}}
    return PlanProblem({name: Candidates(WIDTHS, None) for name in names}, scores, files, costs, **more)


def shares_of(rng, problem):
    draws = {name: rng.lognormal(0, 2, COUNT) for name in problem.names}
    return {name: draw / draw.sum() for name, draw in draws.items()}


def every_option(problem, shares, name):
    order = np.argsort(-shares[name])
    for width in WIDTHS:
        yield problem.scores[name][width], problem.files.layers[name][width]
    for narrow, wide in itertools.combinations(WIDTHS, 2):
        for count in range(1, COUNT):
            weight = shares[name][order[:count]].sum()
            loss = weight * problem.scores[name][wide] + (1 - weight) * problem.scores[name][narrow]
            sizes = problem.files.layers[name]
            yield loss, APART + (count * sizes[wide] + (COUNT - count) * sizes[narrow]) / COUNT


@pytest.mark.parametrize("seed", range(8))
def test_no_plan_within_the_bytes_is_much_better(seed):
    rng = np.random.default_rng(seed)
    problem = problem_of(rng)
    shares, bits = shares_of(rng, problem), dict.fromkeys(problem.names, 4)
    limit = problem.cost(BYTES, bits)
    apart = dict.fromkeys(problem.names, dict.fromkeys(WIDTHS, APART))
    found = plan_channels(problem, bits, {BYTES: limit}, shares, apart, FUNCTION)
    assert found.costs[BYTES] <= limit
    room = limit - BASE - FUNCTION
    options = [sorted(every_option(problem, shares, name)) for name in problem.names]
    best = min(
        sum(loss for loss, _ in plan)
        for plan in itertools.product(*options)
        if sum(size for _, size in plan) <= room
    )
    assert best <= sum(found.losses.values()) <= 1.1 * best
    for name, given in found.layers.items():
        if given.narrow is not None:
            weight = np.sort(shares[name])[::-1][: given.wide].sum()
            scores = problem.scores[name]
            expected = weight * scores[given.bits] + (1 - weight) * scores[given.narrow]
            assert found.losses[name] == pytest.approx(expected)


def test_all_limits_hold_and_bytes_do_not_grow_without_one():
    rng = np.random.default_rng(0)
    problem = problem_of(rng)
    shares, bits = shares_of(rng, problem), dict.fromkeys(problem.names, 4)
    found = plan_channels(problem, bits, {EFFECTIVE_BITS: 4}, shares, {}, FUNCTION)
    assert found.costs[EFFECTIVE_BITS] <= 4 + 1e-9
    assert found.costs[BYTES] <= problem.cost(BYTES, bits)
    assert sum(found.losses.values()) < problem.loss(bits)


def test_channels_alike_are_left_together():
    problem = problem_of(np.random.default_rng(1))
    alike = {name: np.full(COUNT, 1 / COUNT) for name in problem.names}
    bits = dict.fromkeys(problem.names, 8)
    assert plan_channels(problem, bits, {}, alike, {}, FUNCTION) is None


def test_ties_pairs_float_and_rules_are_kept():
    rng = np.random.default_rng(2)
    problem = problem_of(rng, ties=(("layer0", "layer1"),))
    shares, bits = shares_of(rng, problem), dict.fromkeys(problem.names, 4)
    assert plan_channels(problem, bits, {}, shares, {}, FUNCTION) is None
    assert plan_channels(problem_of(rng, allocation="ompq"), bits, {}, shares, {}, FUNCTION) is None
    free = problem_of(np.random.default_rng(2))
    free.candidates["layer0"] = Candidates((4,), "pinned")
    free.candidates["layer1"] = Candidates((*WIDTHS, FLOAT_BITS), None)
    for table in (free.scores, free.files.layers, *free.costs.values()):
        table["layer1"][FLOAT_BITS] = 0.0 if table is free.scores else 1e4
    found = plan_channels(free, bits, {}, shares, {}, FUNCTION)
    assert found.layers["layer0"] == ChannelBits(4)
    assert found.layers["layer1"].bits != FLOAT_BITS


def test_it_is_said_in_words():
    assert told(ChannelBits(5, 3, 60), 480) == "5 bits for 60 of 480 channels, 3 for the others"
    assert told(ChannelBits(4), 480) == "4 bits"
