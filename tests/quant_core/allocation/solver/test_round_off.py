"""Budgets that are sums of the costs themselves, numbers far apart, and sums whose last digits hang on their order."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from quant_core.allocation import Problem, pareto_front, solve
from quant_core.errors import InfeasibleBudgetError, SpecError


def sums(table: np.ndarray, plans: np.ndarray) -> np.ndarray:
    return np.array([math.fsum(row) for row in table[np.arange(len(table)), plans].tolist()])


def every_plan(table: np.ndarray) -> np.ndarray:
    return np.array(list(itertools.product(range(table.shape[1]), repeat=len(table))))


def values(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    kind = rng.integers(7)
    if kind == 0:  # tenths have no exact binary form: every order of a sum ends in other digits
        return np.round(rng.random(shape), 1)
    if kind == 1:
        return 10.0 ** rng.uniform(-12, 12, shape)
    if kind == 2:  # a price that is meant to rule a choice out
        return np.where(rng.random(shape) < 0.2, 10.0 ** rng.integers(6, 18), np.round(rng.random(shape), 2))
    if kind == 3:
        return np.repeat(rng.random((1, shape[1])), shape[0], axis=0)
    if kind == 4:
        return np.zeros(shape)
    if kind == 5:
        return rng.integers(0, 6, shape).astype(float)
    return 1e6 + rng.random(shape)


@pytest.mark.parametrize("seed", range(150))
def test_a_budget_equal_to_a_sum_is_met_in_whatever_order_it_was_added_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 6)), int(rng.integers(1, 5)))
    score = values(rng, shape)
    costs = {name: values(rng, shape) for name in ("a", "b")}
    plans = every_plan(score)
    wanted = plans[rng.integers(len(plans))]
    picked = {name: cost[np.arange(shape[0]), wanted] for name, cost in costs.items()}
    add = [np.sum, lambda v: sum(v.tolist()), lambda v: sum(v[::-1].tolist()), math.fsum][seed % 4]
    budgets = {name: float(add(row)) for name, row in picked.items()}
    objective, paid = sums(score, plans), {name: sums(cost, plans) for name, cost in costs.items()}

    def least(slack: float, *names: str) -> float:
        within = [paid[name] <= budgets[name] * (1 + slack) for name in names]
        return float(objective[np.all(within, axis=0)].min())

    def equal(value: float, *names: str) -> bool:
        # Costs between the two tolerances may count either way.
        high, low = least(3e-13, *names), least(3e-12, *names)
        return low * (1 - 1e-9) <= value <= high * (1 + 1e-9)

    plan = solve(Problem(score, costs, budgets))
    assert plan.optimal
    assert equal(plan.objective, "a", "b")
    assert all(plan.costs[name] <= limit * (1 + 3e-12) for name, limit in budgets.items())
    assert equal(pareto_front(Problem(score, costs), "a").plan(budgets["a"]).objective, "a")
    assert equal(pareto_front(Problem(score, costs, {"b": budgets["b"]}), "b")[-1].objective, "b")


def test_points_that_differ_by_the_order_of_a_sum_are_one_point() -> None:
    score = np.array([[0.3, 0.2, 0.1], [0.3, 0.2, 0.1], [0.3, 0.2, 0.1], [0.3, 0.2, 0.1]])
    front = pareto_front(Problem(score, {"ms": [[0.1, 0.2, 0.3]] * 4}), "ms")
    # 0.4 to 1.2 in steps of a tenth, though 0.1 + 0.3 + 0.3 and 0.3 + 0.3 + 0.1 are not the same number.
    assert front.cost == pytest.approx(np.arange(4, 13) / 10, rel=1e-12)
    assert front.objective == pytest.approx(np.arange(12, 3, -1) / 10, rel=1e-12)


@pytest.mark.parametrize("solver", ["highs", "cbc"])
def test_a_price_out_of_reach_does_not_loosen_the_limit(solver: Any) -> None:
    cost = [[1.0, 2.0, 1e18], [1.0, 2.0, 3.0], [1.0, 3.5, 1e18]]
    problem = Problem([[2.0, 1.0, 0.0], [3.0, 1.0, 0.0], [4.0, 1.0, 0.0]], {"ms": cost}, {"ms": 6.0})
    plan = solve(problem, solver=solver)
    assert plan.costs["ms"] <= 6.0
    plans = every_plan(np.array(cost))
    objective, paid = sums(np.array(problem.sensitivity), plans), sums(np.array(cost), plans)
    assert plan.objective == objective[paid <= 6].min()
    assert pareto_front(problem, "ms")[-1].objective == plan.objective


def test_a_pair_beside_prices_out_of_reach_leaves_the_smallest_value_right() -> None:
    cost = np.array([[0.53, 0.68], [0.97, 1e17], [0.6, 0.62]])
    problem = Problem(
        np.zeros((3, 2)), {"ms": cost}, {"ms": 2.12}, forbidden=[((0, 0), (2, 0))], allowed=cost < 1e18
    )
    assert solve(problem).costs["ms"] == pytest.approx(0.53 + 0.97 + 0.62, rel=1e-12)
    with pytest.raises(InfeasibleBudgetError, match=r"smallest reachable value is 2\.12\."):
        solve(Problem(np.zeros((3, 2)), {"ms": cost}, {"ms": 2.1}, forbidden=problem.forbidden))


def test_limits_that_hold_one_by_one_by_their_last_digit_and_not_together_are_explained() -> None:
    first = [[3e-9, 7.5e-10, 4.1e-10], [2e5, 1.9e5, 1.95e5]]
    second = [[7.2e13, 1.0e13, 2.4e13], [8.6e13, 6.4e13, 5.1e13]]
    third = [[0.031, 0.0246, 0.0093], [0.007, 0.0033, 0.0004]]
    limits = {"a": 1.95e5 + 4.1e-10, "b": 7.4e13, "c": 0.0097}
    problem = Problem(
        np.ones((2, 3)), {"a": first, "b": second, "c": third}, limits, pins={1: 2}, names=["stem", "head"]
    )
    with pytest.raises(InfeasibleBudgetError, match=r"^c: .* within the budget for a and b is 0\.025"):
        solve(problem)


def test_limits_that_leave_a_layer_no_choice_together_are_explained() -> None:
    with pytest.raises(
        InfeasibleBudgetError, match=r"^b: the budget is 5, but .* within the budget for a is 10"
    ):
        solve(Problem([[3, 0]], {"a": [[1, 9]], "b": [[10, 1]]}, {"a": 5, "b": 5}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ties": [0, 1]}, "no groups of layer indices"),
        ({"ties": [["conv1", "fc"]]}, "no groups of layer indices"),
        ({"ties": None}, "no groups of layer indices"),
        ({"pins": [(0, 1)]}, "do not map layer indices"),
        ({"pins": {0: 1.5}}, "do not map layer indices"),
        ({"budgets": {"ms": None}}, "it is None"),
        ({"budgets": {"ms": "much"}}, "it is 'much'"),
        ({"budgets": {"ms": -math.inf}}, "it is -inf"),
        ({"sensitivity": [[1j, 0], [0, 0]]}, "not a table of numbers"),
        ({"sensitivity": [[1, 0], [1]]}, "not a table of numbers"),
    ],
)
def test_what_is_no_problem_is_refused(change: dict[str, Any], told: str) -> None:
    given: dict[str, Any] = {"sensitivity": [[1, 0], [1, 0]], "costs": {"ms": [[1, 2], [1, 2]]}} | change
    with pytest.raises(SpecError, match=told):
        solve(Problem(**given))


def test_a_front_is_not_asked_for_no_number() -> None:
    with pytest.raises(SpecError, match="it is nan"):
        pareto_front(Problem([[1, 0]], {"bytes": [[1, 2]]})).plan(math.nan)
