"""Swap search against enumeration, and its promise: no change of one or two rows helps."""

import itertools
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_core.allocation import Problem, pareto_front, solve
from quant_core.allocation.solver.groups import group_layers
from quant_core.allocation.solver.swap_search import quadratic_bound, swap_search
from quant_core.errors import NonFiniteError, SpecError

# Two layers of which one may have the larger choice: alone it is the first, but with the second they gain 5.
PAIR = Problem(
    [[1.0, 0.0], [1.0, 0.5]],
    {"bytes": [[1, 3], [1, 3]]},
    {"bytes": 4},
    interactions=[[[[0, 0], [0, -5]], [[0, 0], [0, 0]]], [[[0, 0], [0, 0]], [[-5, 0], [0, 0]]]],
)


def gram(rng: np.random.Generator, layers: int, choices: int) -> tuple[Any, Any]:
    """Output changes z and a loss of half the squared norm of their sum."""
    z = (
        rng.normal(size=(layers, choices, 6))
        * rng.lognormal(0, 1, (layers, 1, 1))
        * 2.0 ** -np.arange(choices)[:, None]
    )
    return 0.5 * np.einsum("ikd,ikd->ik", z, z), np.einsum("ikd,jld->ikjl", z, z)


def objective(problem: Problem, choice: tuple[int, ...]) -> float:
    scores, pairs = np.asarray(problem.sensitivity), np.asarray(problem.interactions)
    own = sum(scores[i, k] for i, k in enumerate(choice))
    both = sum(pairs[i, choice[i], j, choice[j]] for i, j in itertools.combinations(range(len(choice)), 2))
    return float(own + both)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    layers, choices = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        scores, pairs = gram(rng, layers, choices)
    else:
        scores, pairs = (
            rng.normal(size=(layers, choices)),
            rng.normal(size=(layers, choices, layers, choices)),
        )
    costs: dict[str, Any] = {
        "bytes": rng.integers(0, 1000, (layers, choices)),
        "ms": rng.integers(0, 3000, (layers, choices)) / 1024,
    }
    budgets = {}
    for name in draw(st.sampled_from([(), ("bytes",), ("bytes", "ms")])):
        low, high = costs[name].min(axis=1).sum(), costs[name].max(axis=1).sum()
        budgets[name] = round(float(low + draw(st.floats(0, 1)) * (high - low)), 5)
    ties = [[0, layers - 1]] if layers > 1 and draw(st.booleans()) else []
    allowed = rng.random((layers, choices)) < 0.8
    allowed[:, draw(st.integers(0, choices - 1))] = True
    pins = {}
    if draw(st.booleans()):
        pins = {layers // 2: int(np.flatnonzero(allowed.all(axis=0))[0])}
    return Problem(np.where(allowed, scores, np.nan), costs, budgets, ties, pins, allowed, interactions=pairs)


@settings(max_examples=60)
@given(problems())
def test_no_change_of_two_rows_beats_the_plan(brute_force: Any, problem: Problem) -> None:
    choices = brute_force.feasible(problem)
    if not choices:
        return
    plan = solve(problem)
    assert plan.choice in choices
    assert plan.objective == pytest.approx(objective(problem, plan.choice), rel=1e-9, abs=1e-9)
    diagonal = solve(replace(problem, interactions=None)).choice
    assert plan.objective <= objective(problem, diagonal) + 1e-9
    row = {layer: min(group) for group in problem.ties for layer in group}
    for choice in choices:
        value = objective(problem, choice)
        changed = {row.get(i, i) for i in range(len(choice)) if choice[i] != plan.choice[i]}
        if len(changed) <= 2:
            assert plan.objective <= value + 1e-9
        assert plan.objective - plan.gap * abs(plan.objective) <= value + 1e-9
        if plan.optimal:
            assert plan.objective <= value + 1e-9


def test_it_mostly_finds_the_optimum() -> None:
    optimal = improved = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scores, pairs = gram(rng, 6, 4)
        cost = rng.integers(50, 500, 6)[:, None] * np.array([2, 3, 4, 8])
        budget = float(cost.min(axis=1).sum() + rng.uniform(0.1, 0.9) * np.ptp(cost, axis=1).sum())
        problem = Problem(scores, {"bytes": cost}, {"bytes": budget}, interactions=pairs)
        every = np.array(list(itertools.product(range(4), repeat=6)))
        inside = every[cost[np.arange(6), every].sum(axis=1) <= budget]
        values = scores[np.arange(6), inside].sum(axis=1)
        for i, j in itertools.combinations(range(6), 2):
            values += pairs[i, inside[:, i], j, inside[:, j]]
        found = solve(problem).objective
        optimal += found <= values.min() * (1 + 1e-9)
        improved += found < objective(problem, solve(replace(problem, interactions=None)).choice) - 1e-12
    assert optimal >= 22  # strong interactions on purpose
    assert improved >= 20


def test_interactions_that_are_nil_change_nothing() -> None:
    rng = np.random.default_rng(0)
    scores, cost = (
        rng.lognormal(size=(30, 5)) * 4.0 ** -np.arange(5),
        rng.integers(1, 99, (30, 5)).cumsum(axis=1),
    )
    problem = Problem(scores, {"bytes": cost}, {"bytes": float(np.median(cost, axis=1).sum())})
    plain, paired = solve(problem), solve(replace(problem, interactions=np.zeros((30, 5, 30, 5))))
    assert paired.objective == pytest.approx(plain.objective, rel=1e-12)
    assert paired.gap == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_plan_without_a_choice_is_known_to_be_the_best(sign: float) -> None:
    """The bound charges half of each interaction to either row, which is all of it here."""
    problem = Problem([[1.0]] * 4, interactions=np.full((4, 1, 4, 1), sign))
    plan = solve(problem)
    assert plan.objective == pytest.approx(4 + 6 * sign)
    assert plan.gap == pytest.approx(0, abs=1e-12)
    bound = quadratic_bound(group_layers(problem))
    assert bound == pytest.approx(np.full((4, 1), 1 + 1.5 * sign))


def test_two_rows_change_together_where_neither_may_alone() -> None:
    groups = group_layers(PAIR)
    assert swap_search(groups, np.array([1, 0])).tolist() == [0, 1]


def test_same_plan_twenty_times() -> None:
    rng = np.random.default_rng(5)
    scores, pairs = gram(rng, 20, 5)
    cost = rng.integers(50, 500, 20)[:, None] * np.array([2, 3, 4, 6, 8])
    problem = Problem(scores, {"bytes": cost}, {"bytes": float(cost[:, 2].sum())}, interactions=pairs)
    assert len({solve(problem).choice for _ in range(20)}) == 1


def test_bad_tables_are_refused() -> None:
    with pytest.raises(SpecError, match="shape"):
        solve(Problem([[1, 2]] * 2, interactions=np.zeros((2, 2))))
    table = np.zeros((2, 2, 2, 2))
    table[0, 1, 1, 0] = np.nan
    with pytest.raises(NonFiniteError, match="stem with head"):
        solve(Problem([[1, 2]] * 2, interactions=table, names=["stem", "head"]))
    allowed = [[True, False], [True, True]]
    assert solve(Problem([[1, 2]] * 2, interactions=table, allowed=allowed)).choice == (0, 0)
    with pytest.raises(SpecError, match="interactions"):
        pareto_front(Problem([[1, 2]], {"bytes": [[1, 2]]}, interactions=np.zeros((1, 2, 1, 2))))


def test_two_processes_make_the_same_plans() -> None:
    code = (
        "import numpy as np; from benchmarks.allocation import network, paired_network;"
        "from dataclasses import replace; from quant_core.allocation import solve, pareto_front\n"
        "p, q = network(40, 7, 4e6), paired_network(24, 6)\n"
        "b = lambda x: replace(x, budgets={'bytes': float(np.asarray(x.costs['bytes'])[:, 2].sum())})\n"
        "print(solve(b(p)).choice, solve(b(p), solver='cbc').choice, solve(b(q)).choice, "
        "pareto_front(p).plan(1e6).choice)"
    )
    said = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(said) == 1
    assert said.pop().count("(") == 4
