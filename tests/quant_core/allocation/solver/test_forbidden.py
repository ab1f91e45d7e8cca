"""Forbidden pairs against enumeration, and what is refused."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_core.allocation import Problem, pareto_front, solve
from quant_core.allocation.solver.monotone import solve_monotone
from quant_core.errors import InfeasibleBudgetError, SpecError


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    layers, choices = draw(st.integers(2, 5)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.integers(0, draw(st.sampled_from([3, 100])), (layers, choices)).astype(float)
    costs: dict[str, Any] = {
        "bytes": rng.integers(0, draw(st.sampled_from([3, 1000])), (layers, choices)),
        "ms": rng.integers(0, 50, (layers, choices)),
    }
    if draw(
        st.booleans()
    ):  # more bits are better and cost more, but for one layer whose choices are all alike
        scores, costs["bytes"] = -np.sort(-scores, axis=1), np.sort(costs["bytes"], axis=1)
        scores[0], costs["bytes"][0], costs["ms"][0] = 1.0, 1, 1
    budgets = {}
    for name in draw(st.sampled_from([(), ("bytes",), ("bytes", "ms")])):
        low, high = costs[name].min(axis=1).sum(), costs[name].max(axis=1).sum()
        budgets[name] = round(float(low + draw(st.floats(0, 1)) * (high - low)), 5)
    ties = [[0, layers - 1]] if draw(st.booleans()) else []
    every = [
        ((i, k), (j, m))
        for i, j in itertools.permutations(range(layers), 2)
        for k, m in itertools.product(range(choices), repeat=2)
    ]
    count = draw(st.integers(1, len(every) // 3))
    pairs = [every[at] for at in rng.choice(len(every), count, replace=False)]
    return Problem(scores, costs, budgets, ties, forbidden=pairs)


def check(brute_force: Any, problem: Problem) -> list[tuple[int, ...]]:
    """Hold refusals against enumeration and give the plans there are."""
    everywhere = brute_force.feasible(replace(problem, budgets={}))
    choices = brute_force.feasible(problem)
    if not everywhere:
        with pytest.raises(SpecError):
            solve(problem)
    elif not choices:
        with pytest.raises(InfeasibleBudgetError, match="smallest reachable") as refused:
            solve(problem)
        name = refused.value.where
        before = list(problem.budgets)[: list(problem.budgets).index(name)]
        alone = brute_force.feasible(replace(problem, budgets={}))
        beside = brute_force.feasible(replace(problem, budgets={b: problem.budgets[b] for b in before}))
        reachable = {
            f" is {min(int(brute_force.total(problem.costs[name], c)) for c in plans)}."
            for plans in (alone, beside)
            if plans
        }
        assert any(text in str(refused.value) for text in reachable)
    return list(choices)


@settings(max_examples=50)
@given(problems(), st.sampled_from(["highs"] * 9 + ["cbc"]))
def test_equals_enumeration(brute_force: Any, problem: Problem, solver: Any) -> None:
    choices = check(brute_force, problem)
    if choices:
        plan = solve(problem, solver=solver)
        best = min(brute_force.total(problem.sensitivity, choice) for choice in choices)
        assert plan.optimal
        assert plan.choice in choices
        assert plan.objective == pytest.approx(float(best), rel=1e-9, abs=0)


@settings(max_examples=50)
@given(problems(), st.integers(0, 2**32 - 1))
def test_swaps_keep_pairs_apart_and_none_is_left(brute_force: Any, problem: Problem, seed: int) -> None:
    layers, choices = np.asarray(problem.sensitivity).shape
    pairs = np.random.default_rng(seed).normal(scale=30, size=(layers, choices, layers, choices))
    problem = replace(problem, interactions=pairs)

    def value(choice: tuple[int, ...]) -> float:
        both = sum(pairs[i, choice[i], j, choice[j]] for i, j in itertools.combinations(range(layers), 2))
        return float(brute_force.total(problem.sensitivity, choice)) + float(both)

    plans = check(brute_force, problem)
    if not plans:
        return
    plan = solve(problem)
    assert plan.choice in plans
    row = {layer: min(group) for group in problem.ties for layer in group}
    for choice in plans:
        changed = {row.get(i, i) for i in range(layers) if choice[i] != plan.choice[i]}
        if len(changed) <= 2:
            assert plan.objective <= value(choice) + 1e-9
        assert plan.objective - plan.gap * abs(plan.objective) <= value(choice) + 1e-9


def test_a_dominated_choice_is_taken_where_the_better_one_is_excluded() -> None:
    scores, cost = [[0.0, 1.0], [0.0, 9.0]], {"bytes": [[1, 2], [1, 1]]}
    problem = Problem(scores, cost, {"bytes": 3})
    assert solve(problem).choice == (0, 0)
    assert solve(replace(problem, forbidden=[((0, 0), (1, 0))])).choice == (1, 0)


def test_layers_that_are_alike_are_not_reordered_into_a_forbidden_pair() -> None:
    problem = Problem(
        [[1.0, 0.0]] * 3,
        {"bytes": [[1, 2]] * 3},
        {"bytes": 4},
        forbidden=[((0, 1), (1, 0)), ((0, 1), (2, 0))],
    )
    assert solve(problem).choice in {(0, 1, 0), (0, 0, 1)}


def test_contradicting_pins_name_each_other() -> None:
    problem = Problem(
        np.zeros((3, 2)), ties=[[0, 2]], pins={2: 1, 1: 0}, forbidden=[((1, 0), (0, 1))],
        names=["stem", "fc", "head"], labels=["4 bits", "8 bits"],
    )  # fmt: skip
    with pytest.raises(
        SpecError, match="head is pinned to 8 bits and fc is pinned to 4 bits, but the two"
    ) as error:
        solve(problem)
    assert error.value.where == "fc"


def test_a_pair_between_tied_layers_rules_the_choice_out() -> None:
    problem = Problem([[5.0, 0.0]] * 2, ties=[[0, 1]], forbidden=[((0, 1), (1, 1))])
    assert solve(problem).choice == (0, 0)
    with pytest.raises(SpecError, match="no allowed choice in common"):
        solve(replace(problem, forbidden=[((0, 1), (1, 1)), ((0, 0), (1, 0))]))


@pytest.mark.parametrize(
    ("pair", "message"),
    [(((0, 0), (2, 0)), "does not exist"), (((0, 0), (1, -1)), "does not exist"), (((0, 0), (0, 1)), "both options"),
     ((0, 1), "not a pair of options")],
)  # fmt: skip
def test_pairs_that_mean_nothing_are_refused(pair: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        solve(Problem(np.zeros((2, 2)), forbidden=[pair]))


def test_front_and_monotone_rule_refuse_pairs() -> None:
    problem = Problem(np.zeros((2, 2)), {"bytes": np.ones((2, 2))}, forbidden=[((0, 1), (1, 1))])
    with pytest.raises(SpecError, match="cannot hold pairs of choices apart"):
        pareto_front(problem)
    with pytest.raises(SpecError, match="forbidden pairs"):
        solve_monotone(problem, [0, 1])
