import itertools
from dataclasses import replace

import pytest
import torch

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.healing import healed
from quant_core.allocation.plan_bits import fits, plan_bits
from quant_core.spec.width import width_of
from quant_core.trials import affordable_rounds, largest_uniform, refine, settle
from quant_core.trials.meter import Measured
from quant_core.trials.refine import neighbours
from quant_core.trials.settle import misled


def quiet(fraction, message):
    pass


@pytest.mark.parametrize("budget", [35, 45, 60, 80])
def test_refining_never_measures_worse_and_keeps_the_budget(tiny, budget):
    limits = {"bytes": budget}
    plan = plan_bits(tiny.problem, limits).bits
    found, rounds = refine(tiny.problem, plan, limits, tiny.meter, rounds=3, on_progress=quiet)
    assert fits(tiny.problem, found, limits)
    assert tiny.loss(found) <= tiny.loss(plan) * (1 + 1e-6)
    assert rounds[0].before == pytest.approx(tiny.loss(plan), rel=1e-4)
    assert rounds[-1].after == pytest.approx(tiny.loss(found), rel=1e-4)
    moved = dict(plan)
    for step in rounds:
        for move in step.moves:
            assert moved[move.name] == move.before
            moved[move.name] = move.after
    assert moved == dict(found)


def test_refining_repairs_a_plan_that_wrong_scores_made(tiny):
    limits = {"bytes": 60}
    wrong = {name: {b: -losses[b] for b in tiny.bits} for name, losses in tiny.problem.scores.items()}
    bad = plan_bits(replace(tiny.problem, scores=wrong), limits).bits
    found, rounds = refine(tiny.problem, bad, limits, tiny.meter, rounds=6, on_progress=quiet)
    every = (dict(zip(tiny.names, c, strict=True)) for c in itertools.product(tiny.bits, repeat=3))
    best = min(tiny.loss(bits) for bits in every if fits(tiny.problem, bits, limits))
    assert tiny.loss(bad) > 5 * tiny.loss(found)
    assert tiny.loss(found) <= 3 * best
    assert all(step.after <= step.before for step in rounds)


@pytest.mark.parametrize(
    ("width", "budget"), [(8, 1000), (4, 60)], ids=["nothing is better", "less is forced, and worse"]
)
def test_no_plan_is_measured_that_promises_nothing(tiny, width, budget):
    plan = dict.fromkeys(tiny.names, width)
    found, (step,) = refine(tiny.problem, plan, {"bytes": budget}, tiny.meter, rounds=3, on_progress=quiet)
    assert (found, step.tried, step.moves) == (plan, 0, ())
    assert step.neighbours >= len(plan)


def test_tied_layers_move_together(tiny):
    tied = replace(tiny.problem, ties=((tiny.names[0], tiny.names[2]),))
    moves = neighbours(tied, dict.fromkeys(tiny.names, 3))
    assert len(moves) == 4
    assert {tiny.names[0]: 4, tiny.names[2]: 4} in moves
    start = dict.fromkeys(tiny.names, 2)
    found, _ = refine(tied, start, {"bytes": 60}, tiny.meter, rounds=3, on_progress=quiet)
    assert found[tiny.names[0]] == found[tiny.names[2]]
    assert tiny.loss(found) < tiny.loss(start)


def test_the_widest_uniform_plan_inside_every_limit(tiny):
    ((width, bits),) = largest_uniform(tiny.problem, {"bytes": 80})
    assert (width, set(bits.values())) == (4, {4})  # 136 weights: 68 bytes at 4 bits, 136 at 8
    assert largest_uniform(tiny.problem, {"bytes": 80, "effective_bits": 3.5})[0][0] == 3
    assert largest_uniform(tiny.problem, {"bytes": 30}) == ()
    first = tiny.names[0]
    pinned = tiny.problem.candidates | {first: replace(tiny.problem.candidates[first], bits=(8,))}
    ((_, bits),) = largest_uniform(replace(tiny.problem, candidates=pinned), {"bytes": 100})
    assert bits == {name: 8 if name == first else 4 for name in tiny.names}


def test_widths_without_a_score_are_in_no_uniform_plan(tiny):
    """As where sensitivities come from a job that had pinned a layer."""
    first, *others = tiny.names
    scores = {**tiny.problem.scores, first: {2: tiny.problem.scores[first][2]}}
    problem = replace(tiny.problem, scores=scores)
    ((width, bits),) = largest_uniform(problem, {"bytes": 80})
    assert bits == {first: 2} | dict.fromkeys(others, width)
    settled = settle(problem, {"bytes": 80}, tiny.meter, rounds=2, on_progress=quiet)
    assert settled.plan.bits[first] == 2


def test_the_result_is_never_worse_than_uniform(tiny):
    for budget in (35, 51, 60, 68, 90):
        limits = {"bytes": budget}
        settled = settle(tiny.problem, limits, tiny.meter, rounds=2, on_progress=quiet)
        uniform = largest_uniform(tiny.problem, limits)
        assert len(uniform) <= 1
        assert fits(tiny.problem, settled.plan.bits, limits)
        for _, bits in uniform:
            assert tiny.loss(settled.plan.bits) <= tiny.loss(bits) * (1 + 1e-6)
            assert any(trial.name.startswith("uniform") for trial in settled.trials) or (
                settled.trials[0].measured_loss == pytest.approx(tiny.loss(bits), rel=1e-4)
            )
        assert [trial.chosen for trial in settled.trials].count(True) == 1


def test_an_allocation_asked_for_by_name_is_kept(tiny):
    named = replace(tiny.problem, allocation="hawq_v2", priority=dict.fromkeys(tiny.names, 1.0))
    settled = settle(named, {"bytes": 60}, tiny.meter, rounds=2, on_progress=quiet)
    assert settled.plan.solver == "hawq_v2"
    assert settled.refinement == ()
    assert settled.trials[0].chosen


@pytest.fixture
def mistaken(tiny):
    """Scores that prefer few bits where many are better, and one layer that may have 4 alone."""
    scores = {name: {b: -loss for b, loss in row.items()} for name, row in tiny.problem.scores.items()}
    return replace(
        tiny.problem, scores=scores, candidates=tiny.problem.candidates | {"first": Candidates((4,), None)}
    )


def test_a_uniform_plan_that_measures_better_is_taken_and_told(tiny, mistaken):
    settled = settle(mistaken, {"bytes": 80}, tiny.meter, rounds=0, on_progress=quiet)
    ((_, bits),) = largest_uniform(mistaken, {"bytes": 80})
    solved, taken = settled.trials
    assert taken.measured_loss < solved.measured_loss
    assert (solved.chosen, taken.chosen) == (False, True)
    plan, on_paper = settled.plan, plan_bits(mistaken, {"bytes": 80}, healed(mistaken)).bits
    assert plan.bits == bits
    assert (plan.solver, plan.optimal) == (taken.name, False)
    assert on_paper == bits | {"second": 2, "third": 2}
    for layer in plan.layers:
        moved = f"the {taken.name} plan measured better: {on_paper[layer.name]} bits on paper"
        assert (moved in layer.reason) == (on_paper[layer.name] != bits[layer.name])


def test_an_allocation_asked_for_by_name_is_kept_though_it_measures_worse(tiny, mistaken):
    named = replace(mistaken, allocation="hawq_v2", priority=dict.fromkeys(tiny.names, 1.0))
    settled = settle(named, {"bytes": 80}, tiny.meter, rounds=2, on_progress=quiet)
    solved, uniform = settled.trials
    assert uniform.measured_loss < solved.measured_loss
    assert (solved.chosen, uniform.chosen) == (True, False)
    assert settled.plan.solver == "hawq_v2"
    assert settled.refinement == ()


def test_refinement_is_spent_where_scores_mislead(tiny):
    coarse = tiny.meter.loss(dict.fromkeys(tiny.names, 2))
    assert misled(coarse.mean / 10, coarse)
    assert not misled(coarse.mean * 1.1, coarse)


def test_a_single_sample_does_not_tell_that_scores_mislead():
    assert not misled(0.1, Measured(torch.tensor([1.0])))
    assert misled(0.1, Measured(torch.tensor([1.0, 1.1])))


def test_effort_is_counted_in_arithmetic(tiny):
    assert affordable_rounds(tiny.problem, macs=10, samples=48) == 3
    assert affordable_rounds(tiny.problem, macs=10**12, samples=48) == 0


@pytest.mark.parametrize(("width", "rounds"), [(8, 3), (width_of(8, None, 0.02), 2), (width_of(8, 16), 1)])
def test_outliers_and_open_activations_take_more_runs_a_round(tiny, width, rounds):
    """Three layers at 48 samples: 5.8 rounds of one run a layer, of which three are made; 2.9 of two, 1.4 of four."""
    wider = {
        name: replace(choice, bits=(*choice.bits, width)) for name, choice in tiny.problem.candidates.items()
    }
    problem = replace(tiny.problem, candidates=wider)
    assert affordable_rounds(problem, macs=1_200_000_000, samples=48) == rounds


def test_what_a_plan_is_solved_by_foretells_no_loss(tiny):
    problem = replace(tiny.problem, followed=tuple(tiny.names))

    def expected(limits):
        return plan_bits(healed(problem), limits)

    limits = next(
        limits
        for limits in ({"bytes": size} for size in range(40, 100))
        if expected(limits).widths != plan_bits(problem, limits).widths
    )
    settled = settle(problem, limits, tiny.meter, rounds=0, on_progress=quiet)
    trial = settled.trials[0]
    assert trial.bytes == problem.files.total(expected(limits).widths)
    assert trial.predicted_loss == pytest.approx(problem.loss(expected(limits).widths))
    assert settled.plan.predicted_loss == pytest.approx(problem.loss(settled.plan.widths))
