from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_core.allocation import Problem, pareto_front, solve
from quant_core.errors import InfeasibleBudgetError, SpecError


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    layers, choices = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    whole = draw(st.booleans())
    # Dyadic values add up exactly, so that enumeration and merging agree on which points are equal.
    scores = (
        rng.integers(-5, 20, (layers, choices))
        if whole
        else rng.integers(0, 2**20, (layers, choices)) / 2**12
    )
    costs = rng.integers(0, draw(st.sampled_from([6, 10**7])), (layers, choices))
    ties = [[0, layers - 1]] if layers > 1 and draw(st.booleans()) else []
    pins = {layers // 2: draw(st.integers(0, choices - 1))} if draw(st.booleans()) else {}
    return Problem(scores.astype(float), {"bytes": costs}, {}, ties, pins)


@settings(max_examples=300)
@given(problems())
def test_equals_enumeration(brute_force: Any, problem: Problem) -> None:
    points: dict[float, float] = {}
    for choice in brute_force.plans(problem):
        cost = float(brute_force.total(problem.costs["bytes"], choice))
        points[cost] = min(points.get(cost, np.inf), float(brute_force.total(problem.sensitivity, choice)))
    expected: list[tuple[float, float]] = []
    for cost, objective in sorted(points.items()):
        if not expected or objective < expected[-1][1]:
            expected.append((cost, objective))
    front = pareto_front(problem)
    assert [(point.cost, point.objective) for point in front] == expected
    assert front.exact
    assert front.bound == 0
    possible = set(brute_force.plans(problem))
    for point in front:
        assert point.choice in possible
        assert float(brute_force.total(problem.costs["bytes"], point.choice)) == point.cost
        assert float(brute_force.total(problem.sensitivity, point.choice)) == point.objective


def network(layers: int, seed: int, parameters: float) -> Problem:
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(0, 1.5, layers)
    sizes = np.maximum(16, np.round(sizes / sizes.sum() * parameters / 16)) * 16
    bits = np.array([2, 3, 4, 5, 6, 8, 32])
    noise = rng.uniform(0.7, 1.4, (layers, len(bits)))
    scores = rng.lognormal(-3, 1.5, layers)[:, None] * 4.0**-bits * noise
    scores[:, -1] = 0
    return Problem(scores, {"bytes": sizes[:, None] * bits / 8})


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_integer_program(seed: int) -> None:
    problem = network(40, seed, 3e6)
    front = pareto_front(problem)
    for share in (0.07, 0.1, 0.16, 0.22, 0.5):
        budget = share * 4 * 3e6
        planned, solved = front.plan(budget), solve(replace(problem, budgets={"bytes": budget}))
        assert planned.objective == pytest.approx(solved.objective, rel=1e-9, abs=0)
        assert planned.costs["bytes"] <= budget


def test_a_thinned_front_stays_within_its_bound(brute_force: Any) -> None:
    problem = network(25, 5, 1e6)
    exact, thinned = pareto_front(problem), pareto_front(problem, max_points=200)
    assert exact.exact
    assert not thinned.exact
    assert thinned.cost[0] == exact.cost[0]
    assert thinned.objective[-1] == exact.objective[-1]
    reach = np.searchsorted(thinned.cost, exact.cost, side="right") - 1
    loss = thinned.objective[reach] - exact.objective
    assert (loss <= thinned.gap[reach] + 1e-15).all()
    assert loss.max() > 0
    assert len(thinned) > 100
    for point in thinned:
        assert float(brute_force.total(problem.costs["bytes"], point.choice)) == point.cost
        assert float(brute_force.total(problem.sensitivity, point.choice)) == pytest.approx(
            point.objective, rel=1e-12
        )
    assert thinned[7].choice == list(thinned)[7].choice


def test_a_budget_ends_the_front() -> None:
    problem = network(20, 1, 1e6)
    whole, cut = pareto_front(problem), pareto_front(replace(problem, budgets={"bytes": 5e5}))
    inside = whole.cost <= 5e5
    np.testing.assert_array_equal(cut.cost, whole.cost[inside])
    np.testing.assert_allclose(cut.objective, whole.objective[inside], rtol=1e-12)


def test_points_behave_as_a_sequence() -> None:
    front = pareto_front(Problem([[3, 1]] * 2, {"bytes": [[1, 2]] * 2}))
    assert len(front) == 3
    assert front[-1].choice == (1, 1)
    assert [point.cost for point in front[:2]] == [2, 3]
    assert list(front) == [front[0], front[1], front[2]]
    assert list(reversed(front)) == [front[2], front[1], front[0]]


def test_a_budget_below_the_front_is_refused() -> None:
    problem: Any = Problem([[3, 1]] * 2, {"bytes": [[1, 2]] * 2})
    with pytest.raises(InfeasibleBudgetError, match="smallest reachable value is 2"):
        pareto_front(problem).plan(1)
    with pytest.raises(InfeasibleBudgetError, match="smallest reachable value is 2"):
        pareto_front(replace(problem, budgets={"bytes": 1}))


def test_unknown_cost_and_other_budgets_are_refused() -> None:
    with pytest.raises(SpecError, match="ms"):
        pareto_front(Problem([[3, 1]], {"bytes": [[1, 2]]}), cost="ms")
    with pytest.raises(SpecError, match="ms"):
        pareto_front(Problem([[3, 1]], {"bytes": [[1, 2]], "ms": [[1, 2]]}, {"ms": 2}))
