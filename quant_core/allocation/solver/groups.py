"""Ties, pins and masks resolved: a problem whose rows are free to choose on their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from quant_core.allocation.solver.forbidden import Conflict, read_forbidden, refuse_fixed
from quant_core.allocation.solver.interactions import read_interactions, sum_interactions
from quant_core.allocation.solver.problem import Problem
from quant_core.allocation.solver.read_problem import (
    Mask,
    Matrix,
    apply_pins,
    merge_ties,
    read_budgets,
    read_costs,
    read_mask,
    read_matrix,
    read_names,
)
from quant_core.errors import NonFiniteError, SpecError

_ROUND_OFF = 1e-12
"""Relative to the numbers that are added, of which a plan adds up some thousands in float64, each off by 1e-16."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Rows that choose independently; a row is one layer or one tie group.

    Attributes:
        members: Layer indices of each row, ascending; rows are in the order of their first layer.
        sensitivity: Rows x choices, summed over the members; 0 where not allowed.
        costs: Name -> rows x choices, summed over the members; 0 where not allowed.
        budgets: Name -> limit.
        allowed: Rows x choices, after masks, ties and pins.
        unpinned: The same before pins.
        pinned: Rows that hold a pinned layer.
        layers: Layers x choices sensitivities as given.
        layer_costs: Name -> layers x choices as given.
        names: Layer names.
        labels: Choice names.
        conflicts: Choices of two rows that may not be taken together.
        pairs: Rows x choices x rows x choices: interactions summed over the members of both rows, symmetric, 0 within
            a row (those are part of `sensitivity`) and where not allowed; None without interactions.
        layer_pairs: Layers x choices x layers x choices interactions, 0 except where the first layer comes before the
            second and both choices are allowed.
    """

    members: tuple[tuple[int, ...], ...]
    sensitivity: Matrix
    costs: Mapping[str, Matrix]
    budgets: Mapping[str, float]
    allowed: Mask
    unpinned: Mask
    pinned: frozenset[int]
    layers: Matrix
    layer_costs: Mapping[str, Matrix]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    conflicts: tuple[Conflict, ...] = ()
    pairs: Matrix | None = None
    layer_pairs: Matrix | None = None

    def expand(self, rows: npt.NDArray[np.intp]) -> tuple[int, ...]:
        """Spell out a choice per row as a choice per layer.

        Args:
            rows: Choice index of each row.

        Returns:
            Choice index of each layer.
        """
        choice = [0] * len(self.names)
        for row, members in enumerate(self.members):
            for layer in members:
                choice[layer] = int(rows[row])
        return tuple(choice)

    def objective(self, rows: npt.NDArray[np.intp]) -> float:
        """Add up the sensitivities and interactions of a choice per row, correctly rounded.

        Args:
            rows: Choice index of each row.

        Returns:
            The objective.
        """
        index, choice = np.arange(len(self.layers)), np.array(self.expand(rows))
        terms = self.layers[index, choice].tolist()
        if self.layer_pairs is not None:
            terms += self.layer_pairs[index[:, None], choice[:, None], index, choice].ravel().tolist()
        return math.fsum(terms)

    def row_total(self, rows: npt.NDArray[np.intp]) -> float:
        """Add up the sensitivities of a choice per row, without interactions, as fast as a search needs it.

        Args:
            rows: Index of the choice of each row.

        Returns:
            The sum, with the round-off of floating-point addition.
        """
        return float(self.sensitivity[np.arange(len(rows)), rows].sum())

    def cost(self, name: str, rows: npt.NDArray[np.intp]) -> float:
        """Add up one cost of a choice per row, correctly rounded.

        Args:
            name: The cost.
            rows: Choice index of each row.

        Returns:
            The cost.
        """
        matrix = self.layer_costs[name]
        return math.fsum(matrix[np.arange(len(matrix)), self.expand(rows)].tolist())

    def round_off(self, name: str, limit: float) -> float:
        """Give what counts as round-off when a sum of costs is held against a limit.

        It goes by the limit and the cheapest plan, not by the largest cost there is: a choice that is priced out of
        reach does not loosen the limit for the others.

        Args:
            name: The cost.
            limit: The limit.

        Returns:
            A tolerance far below the smallest difference between two byte counts.
        """
        return _ROUND_OFF * max(abs(limit), self._ground[name]) if math.isfinite(limit) else 0.0

    def slack(self, name: str) -> float:
        """Give the round-off of one budget.

        Args:
            name: The cost.

        Returns:
            See `round_off`.
        """
        return self.round_off(name, self.budgets[name])

    @cached_property
    def _ground(self) -> dict[str, float]:
        # Name -> sum of the sizes of what the cheapest plan adds up.
        found = {}
        for name, cost in self.costs.items():
            cheapest = np.where(self.allowed, cost, np.inf).argmin(axis=1)
            choice = np.array(self.expand(cheapest))
            found[name] = float(np.abs(self.layer_costs[name][np.arange(len(choice)), choice]).sum())
        return found

    def fits(self, rows: npt.NDArray[np.intp]) -> bool:
        """Hold a choice per row against budgets and forbidden pairs, in exact sums rather than a solver's tolerances.

        Args:
            rows: Choice index of each row.

        Returns:
            True if every budget is met and no forbidden pair taken.
        """
        if any(rows[a] == k and rows[b] == m for a, k, b, m in self.conflicts):
            return False
        return all(self.cost(name, rows) <= limit + self.slack(name) for name, limit in self.budgets.items())


def within_reach(groups: Groups) -> Groups:
    """Rule out choices that break a budget even beside the cheapest choice of every other row.

    Solvers compare within tolerances relative to the largest number in a constraint, which such a choice would set.

    Args:
        groups: A problem whose budgets can be met one by one.

    Returns:
        The same problem with as many plans.
    """
    allowed = groups.allowed.copy()
    for name, limit in groups.budgets.items():
        cost = np.where(groups.allowed, groups.costs[name], np.inf)
        least = cost.min(axis=1)
        allowed &= cost - least[:, None] <= limit + 2 * groups.slack(name) - math.fsum(least)
    return replace(groups, allowed=allowed)


def group_layers(problem: Problem) -> Groups:
    """Check a problem and merge tied layers.

    Args:
        problem: The problem as asked.

    Returns:
        The same problem over independent rows.

    Raises:
        SpecError: If shapes disagree, an index does not exist, or ties, pins and masks contradict each other.
        NonFiniteError: If a score or cost that could be chosen is NaN or infinite.
    """
    sensitivity = read_matrix(problem.sensitivity, "sensitivity")
    names, labels = read_names(problem.names, problem.labels, sensitivity.shape)
    costs = read_costs(problem.costs, sensitivity.shape)
    budgets = read_budgets(problem.budgets, costs)
    mask = read_mask(problem.allowed, sensitivity.shape)
    members = merge_ties(problem.ties, len(names))
    conflicts, apart = read_forbidden(problem.forbidden, members, names, len(labels))
    unpinned = apart & [mask[list(group)].all(axis=0) for group in members]
    _refuse_no_choice(unpinned, members, names)
    allowed, pinned_by = apply_pins(problem.pins, members, unpinned, names, labels)
    refuse_fixed(conflicts, allowed, members, pinned_by, names, labels)
    reachable = np.zeros_like(mask)
    for row, group in enumerate(members):
        reachable[list(group)] = allowed[row]
    _refuse_non_finite(sensitivity, reachable, names, "sensitivity")
    for name, cost in costs.items():
        _refuse_non_finite(cost, reachable, names, f"cost {name!r}")
    for cost in costs.values():
        unpinned &= np.array([np.isfinite(cost[list(group)]).all(axis=0) for group in members])
    scores = _sum_rows(np.where(reachable, sensitivity, 0.0), members)
    layer_pairs = pairs = None
    if problem.interactions is not None:
        layer_pairs = read_interactions(problem.interactions, reachable, names)
        pairs, within = sum_interactions(layer_pairs, members)
        scores = scores + within
    return Groups(
        members=members,
        sensitivity=scores,
        costs={
            name: _sum_rows(np.where(np.isfinite(cost), cost, 0.0), members) for name, cost in costs.items()
        },
        budgets=budgets,
        allowed=allowed,
        unpinned=unpinned,
        pinned=frozenset(pinned_by),
        layers=sensitivity,
        layer_costs=costs,
        names=names,
        labels=labels,
        conflicts=conflicts,
        pairs=pairs,
        layer_pairs=layer_pairs,
    )


def _refuse_no_choice(allowed: Mask, members: Sequence[tuple[int, ...]], names: tuple[str, ...]) -> None:
    for row, group in enumerate(members):
        if not allowed[row].any():
            listed = ", ".join(names[i] for i in group)
            tied = f"tied layers {listed} have no allowed choice in common." if len(group) > 1 else ""
            raise SpecError(
                tied or f"layer {listed} has no allowed choice.",
                remedy="Loosen the limits on one of them." if tied else "Allow it at least one choice.",
                where=names[group[0]],
            )


def _refuse_non_finite(values: Matrix, reachable: Mask, names: tuple[str, ...], what: str) -> None:
    bad = (~np.isfinite(values) & reachable).any(axis=1)
    if bad.any():
        listed = [names[i] for i in np.flatnonzero(bad)]
        raise NonFiniteError(
            f"the {what} of {', '.join(listed)} holds NaN or infinity.",
            remedy="Rule those choices out, or pin the layer to a choice with a finite score.",
            where=listed[0],
        )


def _sum_rows(values: Matrix, members: tuple[tuple[int, ...], ...]) -> Matrix:
    return np.stack([values[list(group)].sum(axis=0) for group in members])
