import math
from dataclasses import replace

import numpy as np
import pytest

from quant_core.errors import InfeasibleBudgetError
from quant_core.spec import BitPlan
from quant_core.spec.budget import AccuracyBand
from quant_core.trials.band import Tried, explain_end, nearer, search_band
from quant_core.trials.bounds import mean_bound, share_bound
from quant_core.trials.judge import Verdict

BAND = AccuracyBand(metric="drop", limit=0.01)


def attempts(value, *, infeasible=0, band=BAND):
    """Files of exactly the size asked for, and the sizes that were asked."""
    asked = []

    def attempt(size):
        asked.append(size)
        if size < infeasible:
            raise InfeasibleBudgetError("no", remedy="more")
        found = value(size)
        plan = BitPlan(
            layers=(),
            predicted_loss=1 / size,
            predicted_bytes=size,
            budget_bytes=size,
            optimal=True,
            solver="x",
        )
        return Tried(
            plan, size, None, Verdict(found, found - 0.01, found + 0.01, band.holds(found), bound=found)
        )

    return attempt, asked


@pytest.mark.parametrize("edge", [1_050, 2_000, 5_000, 9_000, 9_990])
def test_bisection_closes_in_on_the_edge(edge):
    attempt, asked = attempts(lambda size: 0.0 if size >= edge else 0.5)
    found = search_band(BAND, 1_000, 10_000, [attempt])
    best = found.tried[found.chosen]
    assert len(asked) <= 8
    assert best.verdict.inside
    # Seven halvings of a factor of ten.
    assert edge <= best.size <= edge * 10 ** (1 / 2**6)
    told = explain_end(BAND, best, 0.95, 500, 2)
    assert "smallest file measured that keeps a drop of at most 1% with 95% confidence" in told


def test_all_inside_ends_at_the_smallest():
    attempt, asked = attempts(lambda size: 0.0)
    found = search_band(BAND, 1_000, 10_000, [attempt])
    assert found.tried[found.chosen].size == min(asked) < 1_050


def test_nothing_inside_gives_the_best_the_curve_and_the_reason():
    attempt, asked = attempts(lambda size: 100 / size)
    found = search_band(BAND, 100, 1_000, [attempt])
    best = found.tried[found.chosen]
    assert asked[0] == best.size == 1_000
    assert len(found.tried) == 3
    assert not best.verdict.inside
    told = explain_end(BAND, best, 0.9, 500, 2)
    assert (
        "no plan measured keeps a drop of at most 1% with 90% confidence: the best, 1,000 bytes, has 0.1"
        in told
    )


def test_outside_the_estimate_says_which_is_best_and_not_the_bound():
    """On three samples the bound of a good file can be far worse than that of a bad one."""

    def attempt(size):
        made, _ = attempts(lambda size: 100 / size)
        found = made(size)
        return replace(found, verdict=replace(found.verdict, bound=0.2 + size / 1_000))

    found = search_band(BAND, 100, 1_000, [attempt])
    assert found.tried[found.chosen].size == 1_000
    largest, smaller = (found.tried[at].verdict for at in (0, 1))
    assert nearer(BAND, largest, smaller)
    assert not nearer(BAND, smaller, largest)


def test_inside_what_counts_is_the_bound():
    sure, lucky = (
        Verdict(value, 0, 1, inside, bound=bound)
        for value, inside, bound in ((0.004, True, 0.009), (0, False, 0.02))
    )
    surer = replace(sure, value=0.005, bound=0.008)
    assert nearer(BAND, sure, lucky)
    assert not nearer(BAND, lucky, sure)
    assert nearer(BAND, surer, sure)
    assert not nearer(BAND, sure, surer)


def test_sizes_that_other_budgets_forbid_are_passed_over():
    attempt, _ = attempts(lambda size: 0.0, infeasible=4_000)
    found = search_band(BAND, 1_000, 10_000, [attempt])
    assert 4_000 <= found.tried[found.chosen].size <= 4_100


def test_a_file_inside_that_came_out_larger_than_the_best_is_not_taken():
    asked = []

    def attempt(size):
        asked.append(size)
        inner, _ = attempts(lambda size: 0.0)
        return inner(size if size == 10_000 else size + 8_000)

    found = search_band(BAND, 1_000, 10_000, [attempt])
    assert [tried.size for tried in found.tried[:2]] == [10_000, asked[1] + 8_000]
    assert found.tried[1].size > 10_000
    assert found.tried[found.chosen].size == min(tried.size for tried in found.tried)


def test_one_size_is_made_once():
    attempt, asked = attempts(lambda size: 0.0)
    search_band(BAND, 8, 8, [attempt])
    assert asked == [8]


def test_coarse_files_do_not_loop():
    # Files come only in steps of a factor of two.
    def attempt(size):
        real = 2 ** int(math.log2(size))
        inner, _ = attempts(lambda s: 0.0 if s >= 2048 else 0.5)
        return inner(real)

    found = search_band(BAND, 1_000, 10_000, [attempt])
    assert found.tried[found.chosen].size == 2048


def test_too_few_samples_say_how_many_it_takes():
    attempt, _ = attempts(lambda size: 0.0)
    best = attempt(1_000)
    told = explain_end(BAND, best, 0.95, 60, 508)
    assert told.startswith(
        "60 samples cannot show with 95% confidence that a file keeps a drop of at most 1%; 508 would"
    )
    assert "keeps it by its estimate, 0, has 1,000 bytes" in told
    assert "no number of samples can" in explain_end(BAND, best, 0.95, 60, math.inf)
    outside = replace(best, verdict=Verdict(0.005, 0, 0.02, False, bound=0.012, needed=900))
    assert "about 900 judging samples" in explain_end(BAND, outside, 0.95, 600, 508)


@pytest.mark.parametrize("skewed", [False, True])
def test_the_chosen_file_keeps_the_band_as_often_as_promised(skewed):
    """Made-up files whose true values are known, judged on draws of which the search knows nothing else."""
    rng, runs, count, limit, confidence = np.random.default_rng(5), 200, 400, 0.05, 0.8
    band = AccuracyBand(metric="loss" if skewed else "drop", limit=limit)
    outside = below = 0
    for _ in range(runs):
        # One draw of samples, which all files share, as they do in a job.
        uniform, loss = rng.random(count), rng.lognormal(-0.5, 1, count)

        def attempt(size, uniform=uniform, loss=loss):
            true = 50 / size
            values = true * loss if skewed else (uniform < true).astype(float)
            alpha = (1 - confidence) / 8
            bound = (mean_bound if skewed else share_bound)(values, alpha)
            found = Verdict(float(values.mean()), 0, 1, band.holds(bound), bound=bound)
            return replace(attempts(lambda _: 0.0)[0](size), verdict=found)

        found = search_band(band, 100, 10_000, [attempt], most=7)
        best = found.tried[found.chosen]
        outside += 50 / best.size > limit
        below += best.size < 10_000
    # The mean of exp(normal(-0.5, 1)) is 1, so that 50 / size is the mean loss of a file as well.
    assert outside / runs <= 1 - confidence + 3 * math.sqrt(confidence * (1 - confidence) / runs)
    assert below == runs


def test_the_first_way_that_brings_the_largest_inside_is_searched_on():
    fast, asked_fast = attempts(lambda size: 0.5)
    slower, asked_slower = attempts(lambda size: 0.0 if size >= 3_000 else 0.5)
    slowest, asked_slowest = attempts(lambda size: 0.0)
    found = search_band(BAND, 1_000, 10_000, [fast, slower, slowest])
    best = found.tried[found.chosen]
    assert asked_fast == [10_000]
    assert asked_slowest == []
    assert len(asked_fast) + len(asked_slower) == len(found.tried) <= 8
    assert found.way == 1
    assert best.verdict.inside
    assert 3_000 <= best.size <= 3_100


def test_without_a_way_inside_the_first_whose_estimate_is_comes_back():
    def way(value, bound):
        made, _ = attempts(lambda size: value * 1_000 / size)

        def attempt(size):
            found = made(size)
            return replace(found, verdict=replace(found.verdict, bound=bound, inside=False))

        return attempt

    def chosen(*ways):
        found = search_band(BAND, 100, 1_000, ways)
        assert len(found.tried) == len(ways) + 2
        assert found.chosen == found.way
        return found.way

    assert chosen(way(0.03, 0.05), way(0.009, 0.03), way(0.002, 0.02)) == 1
    assert chosen(way(0.03, 0.05), way(0.02, 0.03), way(0.015, 0.02)) == 2
    assert chosen(way(0.03, 0.05), way(0.029, 0.03), way(0.028, 0.02)) == 0
    assert chosen(way(0.03, 0.05), way(0.02, 0.03), way(0.019, 0.02)) == 1


@pytest.mark.parametrize(
    ("metric", "limit", "worst", "values"),
    [("sqnr", 38, 30.0, (31.1, 30.8)), ("cosine", 0.99999, 0.999, (0.99925, 0.9991))],
)
def test_outside_a_later_way_must_lose_a_fifth_less(metric, limit, worst, values):
    band = AccuracyBand(metric=metric, limit=limit)
    for way, value in zip((1, 0), values, strict=True):
        ways = [attempts(lambda size, value=each: value, band=band)[0] for each in (worst, value)]
        assert search_band(band, 100, 1_000, ways).way == way


def test_ways_that_other_budgets_forbid_end_them():
    fast, asked = attempts(lambda size: 0.5)
    slower, _ = attempts(lambda size: 0.0, infeasible=10_000)
    found = search_band(BAND, 1_000, 9_000, [fast, slower])
    assert (found.way, found.chosen) == (0, 0)
    assert len(asked) == len(found.tried) == 3
    with pytest.raises(InfeasibleBudgetError):
        search_band(BAND, 1_000, 9_000, [slower, fast])
