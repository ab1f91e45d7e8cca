from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_core.allocation import Problem, solve
from quant_core.allocation.solver.integer_program import minimise
from quant_core.errors import InfeasibleBudgetError, NonFiniteError, SpecError
from tests.quant_core.allocation.solver.rules import draw_rules


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    layers, choices = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        scores: Any = rng.integers(-3, 8, (layers, choices)).astype(float)
    else:
        scores = rng.lognormal(0, draw(st.sampled_from([1.0, 6.0])), (layers, choices)) * rng.choice(
            [1e-9, 1.0, 1e6]
        )
    costs: dict[str, Any] = {
        "bytes": rng.integers(0, 10 ** draw(st.integers(1, 7)), (layers, choices)),
        "ms": rng.integers(0, 3000, (layers, choices)) / 1024,
    }
    names = draw(st.sampled_from([(), ("bytes",), ("ms",), ("bytes", "ms")]))
    budgets = {}
    for name in names:
        low, high = costs[name].min(axis=1).sum(), costs[name].max(axis=1).sum()
        # Budgets a hair beside a sum count as met; enumeration would tell them apart.
        budgets[name] = round(float(low + draw(st.floats(-0.05, 1)) * (high - low)), 5)
    ties, pins, allowed = draw_rules(draw, rng, layers, choices, 0.8)
    return Problem(np.where(allowed, scores, np.nan), costs, budgets, ties, pins, allowed)


@settings(max_examples=120)
@given(problems())
def test_equals_enumeration(brute_force: Any, problem: Problem) -> None:
    choices = brute_force.feasible(problem)
    if not choices:
        with pytest.raises(InfeasibleBudgetError, match="smallest reachable"):
            solve(problem)
        return
    best = min(brute_force.total(problem.sensitivity, choice) for choice in choices)
    plan = solve(problem)
    assert plan.optimal
    assert plan.choice in choices
    assert plan.objective == pytest.approx(float(best), rel=1e-9, abs=0)
    for name, cost in problem.costs.items():
        assert plan.costs[name] == pytest.approx(float(brute_force.total(cost, plan.choice)))


@settings(max_examples=25)
@given(problems())
def test_cbc_agrees_with_highs(brute_force: Any, problem: Problem) -> None:
    if brute_force.feasible(problem):
        highs, cbc = solve(problem), solve(problem, solver="cbc")
        assert cbc.objective == pytest.approx(highs.objective, rel=1e-9, abs=0)
        assert cbc.optimal


def wide(layers: int = 60, choices: int = 7, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(100, 400_000, layers)
    bits = np.array([2, 3, 4, 5, 6, 8, 32])[:choices]
    scores = rng.lognormal(-4, 2, layers)[:, None] * 4.0**-bits * rng.uniform(0.8, 1.2, (layers, choices))
    cost = np.ceil(sizes[:, None] * bits / 8)
    return Problem(
        scores, {"bytes": cost, "ms": sizes[:, None] * bits * 1e-7}, {"bytes": float(sizes.sum()) * 0.47}
    )


def test_same_plan_twenty_times() -> None:
    plans = {solve(wide()).choice for _ in range(20)}
    assert len(plans) == 1


def test_alike_layers_keep_more_bits_first() -> None:
    problem = Problem([[4.0, 1.0]] * 5, {"bytes": [[1, 2]] * 5}, {"bytes": 7})
    for solver in ("highs", "cbc"):
        assert solve(problem, solver=solver).choice == (1, 1, 0, 0, 0)  # type: ignore[arg-type]


def test_equal_scores_take_the_cheaper_choice() -> None:
    assert solve(Problem([[0, 0, 0]], {"bytes": [[3, 1, 2]]}, {"bytes": 9})).choice == (1,)


def test_scores_of_very_different_size_are_told_apart(brute_force: Any) -> None:
    # The dear choices are twelve orders above what is at stake between the cheap ones.
    scores = [[1e6, 3e-6, 1e-6], [1e6, 5e-6, 2e-6], [1e6, 4.000001e-6, 1e-6]]
    problem = Problem(scores, {"bytes": [[1, 2, 3]] * 3}, {"bytes": 7})
    assert solve(problem).choice == min(
        brute_force.feasible(problem), key=lambda choice: brute_force.total(problem.sensitivity, choice)
    )


def test_a_budget_summed_in_another_order_is_met() -> None:
    cost = [[0.0, 0.1], [0.0, 0.2], [0.0, 0.3]]
    assert solve(Problem([[1, 0]] * 3, {"ms": cost}, {"ms": 0.3 + 0.2 + 0.1})).choice == (1, 1, 1)
    assert solve(Problem([[1, 0]] * 3, {"ms": cost}, {"ms": 0.1 + 0.2 + 0.3})).choice == (1, 1, 1)


def test_a_budget_missed_by_one_byte_is_missed() -> None:
    cost = [[0, 20_000_000], [0, 20_000_001]]
    assert solve(Problem([[1, 0]] * 2, {"bytes": cost}, {"bytes": 40_000_000})).choice in {(1, 0), (0, 1)}


def test_infeasible_names_the_reachable_value_and_the_pins() -> None:
    problem = Problem(
        [[3, 2, 1]] * 3,
        {"bytes": [[10, 20, 40]] * 3},
        {"bytes": 55},
        pins={1: 2, 2: 0},
        names=["stem", "block", "head"],
        labels=["2 bits", "4 bits", "8 bits"],
    )
    with pytest.raises(InfeasibleBudgetError) as caught:
        solve(problem)
    assert caught.value.where == "bytes"
    assert "55" in str(caught.value)
    assert "smallest reachable value is 60" in str(caught.value)
    assert "block at 8 bits (30 above its cheapest)" in str(caught.value)
    assert "head" not in str(caught.value)


def test_budgets_that_only_clash_together_say_so() -> None:
    problem = Problem([[1, 1]], {"bytes": [[1, 9]], "ms": [[9, 1]]}, {"bytes": 5, "ms": 5})
    with pytest.raises(InfeasibleBudgetError) as caught:
        solve(problem)
    assert "within the budget for bytes is 9" in str(caught.value)
    assert caught.value.where == "ms"


def test_cbc_proves_clashes_by_search() -> None:
    # Feasible as a linear program, so that CBC finds out only while branching.
    problem = Problem([[1, 2]] * 3, {"up": [[0, 1]] * 3, "down": [[1, 0]] * 3}, {"up": 1.5, "down": 1.6})
    with pytest.raises(InfeasibleBudgetError, match="within the budget for up is 2"):
        solve(problem, solver="cbc")


def test_contradicting_pins_name_each_other() -> None:
    with pytest.raises(SpecError, match="a is pinned to choice 0 and c to choice 1, but the two are tied"):
        solve(Problem([[1, 2]] * 3, ties=[[0, 1], [1, 2]], pins={0: 0, 2: 1}, names=["a", "b", "c"]))


def test_a_pin_outside_the_mask_names_its_layer() -> None:
    with pytest.raises(SpecError, match=r"a is pinned to choice 0, which is not allowed .* with b"):
        solve(Problem([[1, 2]] * 2, ties=[[0, 1]], pins={0: 0}, allowed=[[1, 1], [0, 1]], names=["a", "b"]))


def test_ties_without_a_common_choice_name_the_layers() -> None:
    with pytest.raises(SpecError, match="tied layers a, b have no allowed choice in common"):
        solve(Problem([[1, 2]] * 2, ties=[[0, 1]], allowed=[[1, 0], [0, 1]], names=["a", "b"]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_scores_name_the_layer(bad: float) -> None:
    with pytest.raises(NonFiniteError, match="middle"):
        solve(Problem([[1, 2], [1, bad], [1, 2]], names=["first", "middle", "last"]))


@pytest.mark.parametrize(
    "problem",
    [
        Problem([[1, 2], [1]]),
        Problem([1, 2]),
        Problem([]),
        Problem([[1, 2]], {"bytes": [[1, 2, 3]]}),
        Problem([[1, 2]], budgets={"bytes": 1}),
        Problem([[1, 2]], ties=[[0, 1]]),
        Problem([[1, 2]], pins={0: 2}),
        Problem([[1, 2]], pins={-1: 0}),
        Problem([[1, 2]], allowed=[[True]]),
        Problem([[1, 2]], allowed=[[False, False]]),
        Problem([[1, 2]], names=["a", "b"]),
        Problem([[1, 2]] * 2, allowed=[[True], [True, False]]),
        Problem([[1, 2]] * 2, interactions=[[1], [2, 3]]),
        Problem([[1, 2]] * 2, interactions=np.zeros((2, 2, 2, 2)) + 1j),
        Problem([[1, 2]] * 2, forbidden=[((0.9, 1), (1, 1))]),  # type: ignore[list-item]
    ],
)
def test_malformed_problems_are_refused(problem: Problem) -> None:
    with pytest.raises(SpecError):
        solve(problem)


def test_unknown_solver_is_refused() -> None:
    with pytest.raises(SpecError, match="gurobi"):
        solve(Problem([[1]]), solver="gurobi")  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", ["highs", "cbc"])
def test_a_plan_at_the_time_limit_comes_with_its_gap(solver: Any) -> None:
    rng = np.random.default_rng(3)
    # Strongly correlated knapsacks with several budgets: far beyond what a solver proves in this time.
    costs: dict[str, Any] = {name: rng.integers(1000, 2000, (150, 6)) for name in "abcde"}
    scores = -sum(costs.values()) - rng.integers(0, 20, (150, 6))
    budgets = {name: float(np.median(cost, axis=1).sum()) for name, cost in costs.items()}
    plan = solve(Problem(scores, costs, budgets), solver=solver, time_limit=0.5)
    assert not plan.optimal
    assert 0 < plan.gap < 0.1
    assert all(plan.costs[name] <= limit for name, limit in budgets.items())


def test_the_solver_is_given_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def noting(*arguments: Any) -> Any:
        given.append(arguments[-1])
        return minimise(*arguments)

    monkeypatch.setattr("quant_core.allocation.solver.solve.minimise", noting)
    scores, costs = np.array([[4.0, 1.0, 0.0]] * 2), np.array([[1, 2, 4]] * 2)
    assert solve(Problem(scores, {"bytes": costs}, {"bytes": 5}), time_limit=1e6).optimal
    assert 0 < 1e6 - given[0] < 1e5
