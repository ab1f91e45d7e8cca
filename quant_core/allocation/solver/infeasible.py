"""Why no plan fits: the smallest reachable value, and the pins that stand in the way."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from quant_core.allocation.solver.groups import Groups, within_reach
from quant_core.allocation.solver.integer_program import TRUSTED, Solver, minimise
from quant_core.allocation.solver.read_problem import Mask, Matrix
from quant_core.allocation.solver.relaxation import relax
from quant_core.errors import InfeasibleBudgetError, InternalError, SpecError


def check_each_budget(groups: Groups, solver: Solver = "highs") -> None:
    """Refuse forbidden pairs that rule out every plan, and a budget that no plan meets even on its own.

    Args:
        groups: The problem.
        solver: `highs` or `cbc`; only asked where there are forbidden pairs.

    Raises:
        SpecError: If every plan takes a forbidden pair.
        InfeasibleBudgetError: If the cheapest plan costs more than a budget allows.
        InternalError: If the solver contradicts itself.
    """
    if groups.conflicts and _cheapest(groups, None, solver) is None:
        named = sorted(
            {groups.names[groups.members[row][0]] for a, _, b, _ in groups.conflicts for row in (a, b)}
        )
        raise SpecError(
            f"every plan takes a forbidden pair; the pairs are between {', '.join(named)}.",
            remedy="Lift some of the pairs, or the pins and limits of these layers.",
            where="forbidden",
        )
    for name in groups.budgets:
        cheapest = _cheapest(groups, name, solver)
        if cheapest is None:
            raise InternalError(f"{solver} found a plan without budgets, then none of the least {name}")
        if not replace(groups, budgets={name: groups.budgets[name]}).fits(cheapest):
            error = explain(groups, name, groups.cost(name, cheapest), ())
            raise error


def explain_together(groups: Groups, solver: Solver) -> InfeasibleBudgetError:
    """Name the first budget that cannot be met beside those before it, and what it could reach.

    Args:
        groups: A problem whose budgets can be met one by one but not together.
        solver: `highs` or `cbc`.

    Returns:
        The error to raise.

    Raises:
        InternalError: If every budget turns out to fit beside the others.
    """
    names = list(groups.budgets)
    for count in range(1, len(names)):
        name, before = names[count], names[:count]
        cost = np.where(groups.allowed, groups.costs[name], 0.0)
        cheapest = replace(
            groups,
            sensitivity=cost,
            layers=groups.layer_costs[name],
            budgets={other: groups.budgets[other] for other in before},
            pairs=None,
            layer_pairs=None,
        )
        cheapest = within_reach(cheapest)
        rows = _least(cheapest, relax(cheapest).keep, solver)
        if rows is None:
            break
        reachable = groups.cost(name, rows)
        if reachable > groups.budgets[name] + groups.slack(name):
            return explain(groups, name, reachable, tuple(before))
    raise InternalError(f"{solver} found budgets infeasible that it can meet one after the other")


def explain(groups: Groups, name: str, reachable: float, beside: tuple[str, ...]) -> InfeasibleBudgetError:
    """Word the error for one budget.

    Args:
        groups: The problem.
        name: The budget that cannot be met.
        reachable: The smallest value it could have.
        beside: Budgets kept meanwhile.

    Returns:
        The error to raise.
    """
    cost = groups.costs[name]
    pins = []
    for row in sorted(groups.pinned):
        pinned = float(_priced(cost, groups.allowed)[row].min())
        free = float(_priced(cost, groups.unpinned)[row].min())
        if pinned > free:
            choice = groups.labels[int(groups.allowed[row].argmax())]
            layers = " and ".join(groups.names[i] for i in groups.members[row])
            pins.append((pinned - free, f"{layers} at {choice} ({number(pinned - free)} above its cheapest)"))
    within = f" within the budget for {' and '.join(beside)}" if beside else ""
    message = (
        f"the budget is {number(groups.budgets[name])}, but the smallest reachable value{within} is "
        f"{number(reachable)}."
    )
    if pins:
        message += f" Pins in the way: {'; '.join(text for _, text in sorted(pins, key=lambda p: -p[0]))}."
    lift = " or lift pins" if pins else ""
    return InfeasibleBudgetError(
        message, remedy=f"Raise the budget to at least {rounded_up(reachable)}{lift}.", where=name
    )


def with_rules(error: InfeasibleBudgetError, reasons: Iterable[str | None]) -> InfeasibleBudgetError:
    """Say under which rules an error holds.

    Args:
        error: The error.
        reasons: What narrowed each layer's choices; None where nothing did.

    Returns:
        The same error with the rules; itself where there are none.
    """
    rules = sorted({reason for reason in reasons if reason is not None})
    if not rules:
        return error
    return InfeasibleBudgetError(
        f"{error.message.rstrip('.')}, with {'; '.join(rules)}.",
        remedy=f"{(error.remedy or '').rstrip('.')}, or lift some of these rules.",
        where=error.where,
    )


def _cheapest(groups: Groups, name: str | None, solver: Solver) -> npt.NDArray[np.intp] | None:
    # The plan of the least cost, or without a name any plan; None if there is none.
    if not groups.conflicts:
        assert name is not None
        return np.asarray(_priced(groups.costs[name], groups.allowed).argmin(axis=1))
    cost = groups.costs[name] if name is not None else np.zeros_like(groups.sensitivity)
    cheapest = replace(groups, sensitivity=cost, budgets={}, pairs=None, layer_pairs=None)
    return _least(cheapest, groups.allowed, solver)


def _least(groups: Groups, keep: Mask, solver: Solver) -> npt.NDArray[np.intp] | None:
    # The plan of the least sum; again on its own scale where that turns out far below the largest choice.
    score, rows = groups.sensitivity, None
    magnitude = float(np.ptp(score[keep])) if keep.any() else 0.0
    while True:
        found = minimise(groups, keep, magnitude, solver, None).rows
        if found is None:
            return rows
        rows, least = found, np.where(keep, score, np.inf).min(axis=1)
        excess = float((score[np.arange(len(rows)), rows] - least).sum())
        if excess <= 0 or excess >= TRUSTED * magnitude:
            return rows
        keep, magnitude = keep & (score - least[:, None] <= excess * (1 + 1e-9)), excess


def _priced(cost: Matrix, allowed: np.ndarray) -> Matrix:
    return np.where(allowed, cost, np.inf)


def number(value: float) -> str:
    """Write a cost in full, without noise of the last digits.

    Args:
        value: The cost.

    Returns:
        Its digits.
    """
    return f"{value:.0f}" if value == round(value) else f"{value:.12g}"


def rounded_up(value: float) -> str:
    """Write a budget that a cost fits in, in few digits.

    Args:
        value: The cost.

    Returns:
        Whole numbers as they are, others rounded up to five digits.
    """
    if value == round(value):
        return f"{value:.0f}"
    places = 4 - math.floor(math.log10(abs(value)))
    return number(math.ceil(value * 10.0**places) / 10.0**places)
