"""HAWQ-V2's rule: of two layers the one with the larger mean Hessian trace never gets fewer bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quant_core.allocation.solver.groups import Groups, group_layers
from quant_core.allocation.solver.infeasible import check_each_budget
from quant_core.allocation.solver.problem import Plan, Problem
from quant_core.errors import InfeasibleBudgetError, SpecError

Floats = npt.NDArray[np.float64]

_NO_COST = "no budget"


def solve_monotone(problem: Problem, order: Sequence[int]) -> Plan:
    """Find the plan of least total sensitivity whose choices never rise along an order of the layers.

    `c_a >= c_b` wherever a comes before b; with layers by falling `Tr(H_i) / n_i` and choices by rising bits this is
    the search space of HAWQ-V2 (Dong et al., 2020, section 3.3). Dynamic programming over the order: for each choice of
    the last layer, the non-dominated sums of cost and sensitivity. Exact for one budget. Layers with a single allowed
    choice stand outside the rule, as pinned first and last layers do in the paper; of tied layers the first in the
    order stands for all.

    Args:
        problem: Scores, costs, ties and pins; at most one budget. Higher choice indices mean more bits.
        order: Layer indices, most sensitive first.

    Returns:
        The plan.

    Raises:
        SpecError: If the order is none, or there are several budgets, forbidden pairs or interactions.
        InfeasibleBudgetError: If no plan that follows the rule meets the budget.
        NonFiniteError: If a score that could be chosen is not finite.
    """
    groups = group_layers(problem)
    if sorted(order) != list(range(len(groups.names))):
        raise SpecError(
            f"it does not name each of the {len(groups.names)} layers once.",
            remedy="Give every layer index once, most sensitive first.",
            where="order",
        )
    if len(groups.budgets) > 1 or groups.pairs is not None or groups.conflicts:
        raise SpecError(
            "the rule of HAWQ-V2 is solved for one budget and without interactions or forbidden pairs.",
            remedy="Keep one budget, or use the allocation `optimal`.",
            where="allocation",
        )
    check_each_budget(groups)
    rows = _search(groups, _row_order(groups, order))
    return Plan(
        choice=groups.expand(rows),
        objective=groups.objective(rows),
        costs={name: groups.cost(name, rows) for name in groups.costs},
        optimal=True,
        gap=0.0,
        solver="hawq_v2",
    )


def _row_order(groups: Groups, order: Sequence[int]) -> list[int]:
    place = {layer: i for i, layer in enumerate(order)}
    return sorted(range(len(groups.members)), key=lambda row: min(place[i] for i in groups.members[row]))


def _search(groups: Groups, order: Sequence[int]) -> npt.NDArray[np.intp]:
    name = next(iter(groups.budgets), _NO_COST)
    cost = groups.costs.get(name, np.zeros_like(groups.sensitivity))
    limit = groups.budgets[name] + groups.slack(name) if name in groups.budgets else np.inf
    cheapest = np.where(groups.allowed, cost, np.inf).min(axis=1)
    rest = float(cheapest.sum())
    choices = groups.allowed.shape[1]
    points, values = np.zeros(1), np.zeros(1)
    last = np.full(1, choices - 1)
    steps: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
    for row in order:
        rest -= float(cheapest[row])
        open_to = np.flatnonzero(groups.allowed[row])
        free = len(open_to) > 1
        found = []
        for k in open_to.tolist():
            for states in (
                [np.flatnonzero(last >= k)] if free else [np.flatnonzero(last == j) for j in range(choices)]
            ):
                kept = _undominated(points[states] + cost[row, k], values[states], limit - rest)
                if len(kept):
                    found.append((states[kept], np.full(len(kept), k)))
        if not found:
            raise InfeasibleBudgetError(
                "no plan whose bits follow the order of traces meets the budget.",
                remedy="Raise the budget, loosen limits on layers, or use another allocation.",
                where=name,
            )
        parent, taken = (np.concatenate(part) for part in zip(*found, strict=True))
        points, values = points[parent] + cost[row, taken], values[parent] + groups.sensitivity[row, taken]
        last = taken if free else last[parent]
        steps.append((parent, taken))
    rows = np.zeros(len(groups.members), dtype=np.intp)
    at = int(np.lexsort((points, values))[0])
    for row, (parent, taken) in zip(reversed(order), reversed(steps), strict=True):
        rows[row], at = taken[at], int(parent[at])
    return rows


def _undominated(points: Floats, values: Floats, room: float) -> npt.NDArray[np.intp]:
    order: npt.NDArray[np.intp] = np.lexsort((values, points))
    order = order[points[order] <= room]
    if not len(order):
        return order
    ordered = values[order]
    falls = np.append(True, ordered[1:] < np.minimum.accumulate(ordered)[:-1])
    return np.asarray(order[falls], dtype=np.intp)
