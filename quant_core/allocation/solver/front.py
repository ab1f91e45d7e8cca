"""Every plan that no other plan beats in both cost and objective."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from quant_core.allocation.solver.groups import Groups, group_layers
from quant_core.allocation.solver.hull import Hull
from quant_core.allocation.solver.infeasible import check_each_budget
from quant_core.allocation.solver.problem import Plan, Problem
from quant_core.allocation.solver.read_problem import Mask
from quant_core.allocation.solver.trail import Trail
from quant_core.errors import InfeasibleBudgetError, SpecError

_WORK = 60_000_000
"""Candidate points over all merges before points are thinned out; some seconds on one core."""
_LAST_DIGITS = 4 * float(np.finfo(np.float64).eps)
"""Relative size of what the order of a sum makes of it."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FrontPoint:
    """One plan of the front.

    Attributes:
        cost: What it costs.
        objective: Sum of its sensitivities.
        choice: Choice index of every layer.
    """

    cost: float
    objective: float
    choice: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Front(Sequence[FrontPoint]):
    """Plans in the order of rising cost and falling objective.

    Attributes:
        name: The cost.
        cost: Cost of each point, strictly rising.
        objective: Objective of each point, strictly falling.
        exact: Whether every non-dominated plan is here.
        gap: Per point, the most by which a plan that costs less than the next point can undercut its objective;
            0 when exact.
        bound: The largest gap.
    """

    name: str
    cost: Floats
    objective: Floats
    exact: bool
    gap: Floats
    _groups: Groups
    _trail: Trail

    @property
    def bound(self) -> float:
        """The most by which the front can be beaten at any cost within its range."""
        return float(self.gap.max())

    def choice(self, index: int) -> tuple[int, ...]:
        """Trace one point back to its choices.

        Args:
            index: Which point; negative counts from the end.

        Returns:
            Choice index of every layer.
        """
        at = np.arange(len(self.cost))[index]
        return self._groups.expand(self._trail.rows(np.array([at]))[0])

    def choices(self) -> npt.NDArray[np.int16]:
        """Trace every point back at once.

        Returns:
            Points x layers: choice indices.
        """
        rows = self._trail.rows(np.arange(len(self.cost)))
        row_of = np.empty(len(self._groups.names), dtype=np.intp)
        for row, members in enumerate(self._groups.members):
            row_of[list(members)] = row
        return rows[:, row_of]

    def plan(self, budget: float) -> Plan:
        """Give the best plan of the front within a budget.

        Args:
            budget: The most the cost may be.

        Returns:
            The plan, with every cost of the problem.

        Raises:
            InfeasibleBudgetError: If the cheapest point costs more.
            SpecError: If the budget is no number.
        """
        if not budget > -np.inf:
            raise SpecError(f"it is {budget!r}.", remedy="Give a number.", where="budget")
        limit = budget + self._groups.round_off(self.name, budget)
        index = int(np.searchsorted(self.cost, limit, side="right")) - 1
        if index < 0:
            raise InfeasibleBudgetError(
                f"the budget is {budget:.12g}, but the smallest reachable value is {self.cost[0]:.12g}.",
                remedy=f"Raise the budget to at least {self.cost[0]:.12g}.",
                where=self.name,
            )
        choice = self.choice(index)
        rows = np.array([choice[members[0]] for members in self._groups.members])
        objective, gap = self._groups.objective(rows), float(self.gap[index])
        return Plan(
            choice=choice,
            objective=objective,
            costs={name: self._groups.cost(name, rows) for name in self._groups.costs},
            optimal=gap == 0.0,
            gap=gap / max(abs(objective), float(np.finfo(float).tiny)),
            solver="front",
        )

    def __len__(self) -> int:
        return len(self.cost)

    @overload
    def __getitem__(self, index: int) -> FrontPoint: ...
    @overload
    def __getitem__(self, index: slice) -> list[FrontPoint]: ...
    def __getitem__(self, index: int | slice) -> FrontPoint | list[FrontPoint]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return FrontPoint(float(self.cost[index]), float(self.objective[index]), self.choice(index))

    def __iter__(self) -> Iterator[FrontPoint]:
        for cost, objective, choice in zip(
            self.cost.tolist(), self.objective.tolist(), self.choices().tolist(), strict=True
        ):
            yield FrontPoint(cost, objective, tuple(choice))

    def __reversed__(self) -> Iterator[FrontPoint]:
        return reversed(list(self))


def pareto_front(problem: Problem, cost: str = "bytes", *, max_points: int | None = None) -> Front:
    """Build the front of objective against one additive cost by dominance merging.

    Rows are added one at a time: every point so far joins every choice of the row, and what another point equals
    or beats in both cost and objective is dropped (Nemhauser and Ullmann, 1969). Exact unless the points outgrow
    `max_points`; then only the best point of each stretch of cost goes on, the plans on the hull of the linear
    relaxation join in at the end, and the gap to that hull bounds what was lost. A budget on `cost` ends the front
    there.

    Args:
        problem: Scores, costs, ties and pins; the only budget it may have is one on `cost`.
        cost: The cost to trade against the objective.
        max_points: Most points carried from row to row; by default what keeps the work to some seconds.

    Returns:
        The front.

    Raises:
        SpecError: If the cost does not exist, other costs have budgets too, or there are forbidden pairs or
            interactions.
        InfeasibleBudgetError: If the budget on `cost` cannot be met.
        NonFiniteError: If a score that could be chosen is not finite.
    """
    groups = group_layers(problem)
    if cost not in groups.costs:
        raise SpecError(
            f"there is no cost named {cost!r}; the costs are {', '.join(groups.costs) or 'none'}.",
            remedy="Name one of the problem's costs.",
            where="cost",
        )
    if others := [name for name in groups.budgets if name != cost]:
        raise SpecError(
            f"the front over {cost!r} cannot hold the budgets on {', '.join(others)}.",
            remedy="Drop those budgets, or solve() for one plan within all of them.",
            where="budgets",
        )
    if groups.conflicts:
        raise SpecError(
            "a front adds up layer by layer and cannot hold pairs of choices apart.",
            remedy="Drop the forbidden pairs, or solve() for one plan with them.",
            where="forbidden",
        )
    if groups.pairs is not None:
        raise SpecError(
            "a front adds up layer by layer and cannot hold interactions.",
            remedy="Drop the interactions, or solve() for one plan with them.",
            where="interactions",
        )
    check_each_budget(groups)
    prices, scores, allowed = groups.costs[cost], groups.sensitivity, groups.allowed
    limit = groups.budgets[cost] + groups.slack(cost) if cost in groups.budgets else np.inf
    cap = max_points or max(512, _WORK // allowed.size)
    # Large rows first: sums of few large steps leave fewer points alive on the way than sums of many small ones.
    spread = np.where(allowed, prices, -np.inf).max(axis=1) - np.where(allowed, prices, np.inf).min(axis=1)
    order = np.argsort(-spread, kind="stable")
    rest = np.append(np.where(allowed, prices, np.inf).min(axis=1)[order][::-1].cumsum()[::-1], 0.0)
    points, values, exact, hull = np.zeros(1), np.zeros(1), True, Hull()
    steps = []
    for merged, row in enumerate(order):
        open_to = np.flatnonzero(allowed[row])
        hull.add(prices[row, open_to], scores[row, open_to], open_to)
        room = limit - rest[merged + 1]
        points, values, parent, taken = _merge(points, values, prices[row], scores[row], allowed[row], room)
        if len(points) > cap:
            kept = _thin(points, values, hull, cap)
            points, values, parent, taken = points[kept], values[kept], parent[kept], taken[kept]
            exact = False
        steps.append((parent, taken))
    origin = np.arange(len(points))
    gap = np.zeros(len(points))
    if not exact:
        corners, bounds = hull.corners()
        points, values, origin = _with_corners(points, values, corners, bounds, limit)
        until = np.append(points[1:], min(limit, max(corners[-1], points[-1])))
        gap = np.maximum(0.0, values - np.interp(until, corners, bounds))
    kept = _distinct(points, values, np.where(allowed, prices, np.inf), np.where(allowed, scores, np.inf))
    points, values, gap, origin = points[kept], values[kept], gap[kept], origin[kept]
    return Front(cost, points, values, exact, gap, groups, Trail(origin, order, tuple(steps), hull))


def _merge(
    points: Floats, values: Floats, price: Floats, score: Floats, allowed: Mask, room: float
) -> tuple[Floats, Floats, npt.NDArray[np.int32], npt.NDArray[np.int16]]:
    # Join every point with every choice of a row and keep what is not dominated.
    choices = np.flatnonzero(allowed)
    summed = (points[None, :] + price[choices, None]).ravel()
    valued = (values[None, :] + score[choices, None]).ravel()
    order = np.argsort(summed, kind="stable")
    ordered = valued[order]
    best = np.minimum.accumulate(ordered)
    falls = np.empty(len(order), dtype=np.bool_)
    falls[0] = True
    np.less(ordered[1:], best[:-1], out=falls[1:])
    order = order[falls]
    cost = summed[order]
    # Among points of equal cost only the last, which has the least objective, is not dominated.
    last = np.append(cost[1:] > cost[:-1], True) & (cost <= room)
    order, cost = order[last], cost[last]
    taken, parent = np.divmod(order, len(points))
    return cost, valued[order], parent.astype(np.int32), choices[taken].astype(np.int16)


def _thin(points: Floats, values: Floats, hull: Hull, cap: int) -> npt.NDArray[np.intp]:
    # Keep both ends and, in each of `cap` stretches of the linear relaxation, the point nearest to it. Stretches
    # span equally many of its segments, so that they are short where the choices lie close together.
    corners, bounds = hull.corners()
    along = np.interp(points, corners, np.linspace(0, cap, len(corners)))
    above = values - np.interp(points, corners, bounds)
    bucket = np.minimum(along, cap - 1).astype(np.int64)
    order = np.lexsort((above, bucket))
    first = np.append(True, np.diff(bucket[order]) > 0)
    return np.unique(np.concatenate([[0], order[first], [len(points) - 1]]))


def _with_corners(
    points: Floats, values: Floats, corners: Floats, bounds: Floats, limit: float
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    # Add the plans on the hull and drop what is dominated; corners have negative origins.
    cost = np.concatenate([points, corners[corners <= limit]])
    value = np.concatenate([values, bounds[corners <= limit]])
    origin = np.concatenate([np.arange(len(points)), -1 - np.arange(int((corners <= limit).sum()))])
    order = np.lexsort((value, cost))
    ordered = value[order]
    falls = np.append(True, ordered[1:] < np.minimum.accumulate(ordered)[:-1])
    kept = order[falls]
    return cost[kept], value[kept], origin[kept]


def _distinct(points: Floats, values: Floats, prices: Floats, scores: Floats) -> npt.NDArray[np.intp]:
    # The same sum added up in another order differs in its last digits: of points that cost the same but for them the
    # best stays, and one that is better by nothing but them goes.
    tolerance = _LAST_DIGITS * np.maximum(np.abs(points), np.abs(prices.min(axis=1)).sum())
    kept = np.flatnonzero(np.append(np.diff(points) > tolerance[1:], True))
    tolerance = _LAST_DIGITS * np.maximum(np.abs(values), np.abs(scores.min(axis=1)).sum())
    while len(kept) > 1:
        falls = np.append(True, -np.diff(values[kept]) > tolerance[kept[1:]])
        if falls.all():
            break
        # Only the first of a run of such points goes in each pass: many small steps may add up to a real one.
        kept = kept[falls | np.append(False, ~falls[:-1])]
    return kept
