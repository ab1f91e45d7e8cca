"""The best plan within any number of budgets."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from quant_core.allocation.solver.forbidden import may_replace
from quant_core.allocation.solver.groups import Groups, group_layers, within_reach
from quant_core.allocation.solver.infeasible import check_each_budget, explain_together
from quant_core.allocation.solver.integer_program import TRUSTED, Solver, make_solver, minimise
from quant_core.allocation.solver.problem import Plan, Problem
from quant_core.allocation.solver.read_problem import Mask
from quant_core.allocation.solver.relaxation import relax
from quant_core.allocation.solver.swap_search import quadratic_bound, swap_search
from quant_core.errors import InternalError, SpecError


def solve(problem: Problem, *, solver: Solver = "highs", time_limit: float | None = None) -> Plan:
    """Choose one option a layer: least total sensitivity within every budget.

    Without interactions the plan is proved optimal. With them two plans, the optimum of the sum alone and that of
    `quadratic_bound`, are improved by `swap_search` until no change of one or two rows helps, and the better one is
    taken; `gap` is what the bound leaves open.

    A multiple-choice knapsack as an integer program. Choices that cannot be part of a better plan than one already
    known are left out beforehand. Among equally good choices of a layer the cheaper one is taken; among layers that
    are exactly alike the earlier one gets the costlier choice. The same problem gives the same plan every time.

    Args:
        problem: Scores, costs, budgets, ties, pins and forbidden pairs.
        solver: `highs` (HiGHS) or `cbc` (CBC), both through PuLP.
        time_limit: Seconds for the solver. At the limit the best plan found so far is returned with its gap.

    Returns:
        The plan.

    Raises:
        InternalError: If the solver gave up for no stated reason.
        SpecError: If the problem contradicts itself, or no plan was found within the time limit.
        InfeasibleBudgetError: If no plan meets the budgets; says what could be met and which pins stand in the way.
        NonFiniteError: If a score that could be chosen is not finite.
    """
    groups = group_layers(problem)
    make_solver(solver, time_limit)
    check_each_budget(groups, solver)
    found = _solve_sum(groups, solver, time_limit)
    rows, bound, optimal, found_by = found.rows, found.bound, found.optimal, found.by
    if groups.pairs is not None:
        lower = replace(groups, sensitivity=quadratic_bound(groups), pairs=None, layer_pairs=None)
        bounding = _solve_sum(lower, solver, time_limit)
        plans = [swap_search(groups, start) for start in (rows, bounding.rows)]
        rows, bound, optimal, found_by = (
            min(plans, key=groups.objective),
            bounding.bound,
            False,
            "swap search",
        )
    else:
        rows = _in_layer_order(groups, rows)
    objective = groups.objective(rows)
    gap = 0.0 if optimal else max(0.0, objective - bound) / max(abs(objective), np.finfo(float).tiny)
    return Plan(
        choice=groups.expand(rows),
        objective=objective,
        costs={name: groups.cost(name, rows) for name in groups.costs},
        optimal=optimal or gap == 0.0,
        gap=gap,
        solver=found_by,
    )


@dataclass(frozen=True, eq=False)
class _Found:
    rows: npt.NDArray[np.intp]
    bound: float
    optimal: bool
    by: str


def _solve_sum(groups: Groups, solver: Solver, time_limit: float | None) -> _Found:
    """Solve for the sum of row sensitivities alone."""
    asked, groups = groups, within_reach(groups)
    if not groups.allowed.any(axis=1).all():
        error = explain_together(asked, solver)
        raise error
    relaxed = relax(groups)
    keep = relaxed.keep & ~_dominated(groups)
    rows, bound, optimal, found_by = relaxed.rows, relaxed.bound, False, "relaxation"
    lowest = float(np.where(keep, groups.sensitivity, np.inf).min(axis=1).sum())
    magnitude = groups.row_total(rows) - lowest if rows is not None else 0.0
    magnitude = magnitude if magnitude > 0 else _reach(groups, keep)
    deadline = math.inf if time_limit is None else time.monotonic() + time_limit
    while True:
        left = None if time_limit is None else max(deadline - time.monotonic(), 1e-3)
        solution = minimise(groups, keep, magnitude, solver, left)
        if solution.outcome == "infeasible" and rows is None:
            error = explain_together(asked, solver)
            raise error
        bound = max(bound, solution.bound)
        if solution.rows is not None:
            found_by = solver
            if rows is None or groups.row_total(solution.rows) <= groups.row_total(rows):
                rows = solution.rows
        if rows is None and time_limit is None:
            raise InternalError(f"{solver} ended without a plan and without a proof that there is none")
        if rows is None:
            raise SpecError(
                f"no plan within the budgets was found in {time_limit} s.",
                remedy="Allow more time, or loosen a budget.",
                where="time_limit",
            )
        optimal = solution.outcome == "optimal"
        excess = groups.row_total(rows) - lowest
        if not optimal or excess <= 0 or excess >= TRUSTED * magnitude:
            break
        # The scale was set by a much worse plan: choices dearer than the plan now known drop out, and it is set anew.
        above = groups.sensitivity - np.where(keep, groups.sensitivity, np.inf).min(axis=1)[:, None]
        keep &= above <= excess * (1 + 1e-9)
        magnitude = excess
    return _Found(rows, max(bound, groups.row_total(rows)) if optimal else bound, optimal, found_by)


def _reach(groups: Groups, keep: Mask) -> float:
    score = groups.sensitivity
    return float(
        (np.where(keep, score, -np.inf).max(axis=1) - np.where(keep, score, np.inf).min(axis=1)).sum()
    )


def _dominated(groups: Groups) -> Mask:
    # Choices that another choice of the same row equals or beats in score and in every budgeted cost,
    # and that excludes nothing which the other does not: a worse choice can be needed beside a forbidden pair.
    score = np.where(groups.allowed, groups.sensitivity, np.inf)
    values = [score, *(groups.costs[name] for name in groups.budgets)]
    no_worse = np.ones((*score.shape, score.shape[1]), dtype=np.bool_)
    better = np.zeros_like(no_worse)
    for value in values:
        no_worse &= value[:, None, :] <= value[:, :, None]
        better |= value[:, None, :] < value[:, :, None]
    no_worse &= may_replace(groups.conflicts, score.shape)
    earlier = np.tri(score.shape[1], k=-1, dtype=np.bool_)
    beats = no_worse & (better | earlier) & groups.allowed[:, None, :] & groups.allowed[:, :, None]
    return np.asarray(beats.any(axis=2), dtype=np.bool_)


def _in_layer_order(groups: Groups, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    # Among rows that are exactly alike, give the costlier choices to the earlier ones. Forbidden pairs tell
    # rows apart.
    bound = {row for a, _, b, _ in groups.conflicts for row in (a, b)}
    alike: dict[bytes, list[int]] = {}
    tables = [groups.sensitivity, groups.allowed, *groups.costs.values()]
    for row in sorted(set(range(len(rows))) - bound):
        alike.setdefault(b"".join(table[row].tobytes() for table in tables), []).append(row)
    ordered = rows.copy()
    for members in alike.values():
        chosen = sorted(
            (int(rows[row]) for row in members),
            key=lambda k: (*(-float(groups.costs[name][members[0], k]) for name in groups.budgets), k),
        )
        ordered[members] = chosen
    return ordered
