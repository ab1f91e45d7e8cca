"""HAWQ-V2's rule against enumeration."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_core.allocation import Problem, solve, solve_monotone
from quant_core.errors import InfeasibleBudgetError, SpecError
from tests.quant_core.allocation.solver.rules import draw_rules


@st.composite
def problems(draw: st.DrawFn) -> tuple[Problem, list[int]]:
    layers, choices = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = (
        rng.integers(-2, 9, (layers, choices)) if draw(st.booleans()) else rng.normal(size=(layers, choices))
    )
    cost: Any = rng.integers(0, 50, (layers, choices))
    low, high = cost.min(axis=1).sum(), cost.max(axis=1).sum()
    budgets = (
        {"bytes": float(round(low + draw(st.floats(0, 1)) * (high - low)))} if draw(st.booleans()) else {}
    )
    ties, pins, allowed = draw_rules(draw, rng, layers, choices, 0.85)
    return Problem(scores, {"bytes": cost}, budgets, ties, pins, allowed), rng.permutation(layers).tolist()


def follows(problem: Problem, order: list[int], choice: tuple[int, ...]) -> bool:
    allowed = np.asarray(problem.allowed).copy()
    for group in problem.ties:
        allowed[group] = allowed[group].all(axis=0)
    fixed = {layer for layer in range(len(choice)) if allowed[layer].sum() == 1} | set(problem.pins)
    for group in problem.ties:
        if set(group) & fixed:
            fixed |= set(group)
    later = {layer for group in problem.ties for layer in group if layer != min(group, key=order.index)}
    ruled = [choice[layer] for layer in order if layer not in fixed | later]
    return ruled == sorted(ruled, reverse=True)


@settings(max_examples=200)
@given(problems())
def test_equals_enumeration(brute_force: Any, drawn: tuple[Problem, list[int]]) -> None:
    problem, order = drawn
    choices = [choice for choice in brute_force.feasible(problem) if follows(problem, order, choice)]
    if not choices:
        with pytest.raises(InfeasibleBudgetError):
            solve_monotone(problem, order)
        return
    plan = solve_monotone(problem, order)
    assert plan.choice in choices
    best = min(brute_force.total(problem.sensitivity, choice) for choice in choices)
    assert plan.objective == pytest.approx(float(best), rel=1e-9, abs=1e-12)


def test_the_rule_costs_something_and_larger_networks_are_quick() -> None:
    rng = np.random.default_rng(0)
    bits = np.array([2, 3, 4, 5, 6, 8])
    sizes = rng.lognormal(8, 1.5, 54).round()
    traces = rng.lognormal(0, 2, 54)
    scores = traces[:, None] * sizes[:, None] * 4.0**-bits
    problem = Problem(scores, {"bytes": sizes[:, None] * bits}, {"bytes": float(sizes.sum() * 4)})
    plan = solve_monotone(problem, np.argsort(-traces).tolist())
    along = np.array(plan.choice)[np.argsort(-traces)]
    assert (np.diff(along) <= 0).all()
    assert plan.costs["bytes"] <= problem.budgets["bytes"]
    assert plan.objective >= solve(problem).objective


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(SpecError, match="once"):
        solve_monotone(Problem([[1, 2]] * 2), [0, 0])
    two = Problem([[1, 2]], {"a": [[1, 2]], "b": [[1, 2]]}, {"a": 2, "b": 2})
    with pytest.raises(SpecError, match="one budget"):
        solve_monotone(two, [0])
