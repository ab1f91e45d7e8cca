"""Lagrangian relaxation: a lower bound, a first plan, and the choices that no better plan can hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quant_core.allocation.solver.groups import Groups
from quant_core.allocation.solver.read_problem import Mask, Matrix

_BISECTIONS = 60


@dataclass(frozen=True, eq=False)
class Relaxation:
    """What relaxing the budgets tells about the best plan.

    Attributes:
        bound: No plan within the budgets has a smaller sum of row sensitivities.
        rows: A plan within the budgets, or None if this search met none.
        keep: Rows x choices; every plan at least as good as `rows` uses kept choices only.
    """

    bound: float
    rows: npt.NDArray[np.intp] | None
    keep: Mask


def relax(groups: Groups) -> Relaxation:
    """Search multipliers along each budget and along all of them together.

    For multipliers `m >= 0` every plan within the budgets has
    `sum s >= sum_rows min_k (s + m . c)[k] - m . budgets`; a choice whose excess over its row's minimum carries
    this bound past a known plan cannot be part of a better one (Everett, 1963).

    Args:
        groups: The problem.

    Returns:
        The best bound and plan met, and the choices left.
    """
    score = np.where(groups.allowed, groups.sensitivity, np.inf)
    bound, rows, value = -np.inf, None, np.inf
    # What fits may exceed a budget by its round-off, which large multipliers carry into the bound.
    limits = {name: limit + 2 * groups.slack(name) for name, limit in groups.budgets.items()}
    excesses: list[tuple[float, Matrix]] = []
    for multipliers in _multipliers(groups, score):
        priced = score + sum(m * groups.costs[name] for name, m in multipliers.items())
        chosen = priced.argmin(axis=1)
        lowest = priced[np.arange(len(priced)), chosen]
        at = float(lowest.sum() - sum(m * limits[name] for name, m in multipliers.items()))
        excesses.append((at, priced - lowest[:, None]))
        bound = max(bound, at)
        found = fill(groups, chosen, score) if groups.fits(chosen) else None
        if found is not None and (total := groups.row_total(found)) < value:
            rows, value = found, total
    keep = groups.allowed.copy()
    if rows is not None:
        margin = 1e-9 * (1.0 + abs(value)) + 1e-9 * float(np.ptp(groups.sensitivity[groups.allowed]))
        for at, excess in excesses:
            keep &= at + excess <= value + margin
    return Relaxation(bound, rows, keep)


def fill(groups: Groups, rows: npt.NDArray[np.intp], score: Matrix) -> npt.NDArray[np.intp]:
    """Spend what a plan leaves of its budgets, best improvement first.

    Args:
        groups: The problem.
        rows: A plan within the budgets.
        score: Rows x choices, infinite where not allowed.

    Returns:
        A plan within the budgets, at least as good.
    """
    rows = rows.copy()
    index = np.arange(len(rows))
    left = {name: limit - groups.cost(name, rows) for name, limit in groups.budgets.items()}
    while True:
        gain = score[index, rows][:, None] - score
        for name, room in left.items():
            cost = groups.costs[name]
            gain = np.where(cost - cost[index, rows][:, None] <= room, gain, 0.0)
        row, choice = np.unravel_index(int(gain.argmax()), gain.shape)
        if not gain[row, choice] > 0:
            return rows
        before, rows[row] = int(rows[row]), choice
        if not groups.fits(rows):
            rows[row] = before
            return rows
        left = {name: limit - groups.cost(name, rows) for name, limit in groups.budgets.items()}


def _multipliers(groups: Groups, score: Matrix) -> Iterator[dict[str, float]]:
    # Bisect the common factor of the multipliers, down to the smallest at which the budgets are met.
    yield dict.fromkeys(groups.budgets, 0.0)
    spread = float(np.ptp(groups.sensitivity[groups.allowed]))
    directions: list[tuple[str, ...]] = [(name,) for name in groups.budgets]
    if len(directions) > 1:
        directions.append(tuple(groups.budgets))
    for names in directions:
        unit = {}
        for name in names:
            width = float(np.ptp(np.where(groups.allowed, groups.costs[name], groups.costs[name].min())))
            unit[name] = 1.0 / width if width > 0 else 0.0
        low, high = -60.0, 60.0
        scale = spread if spread > 0 else 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            multipliers = {name: scale * 2.0**middle * u for name, u in unit.items()}
            priced = score + sum(m * groups.costs[name] for name, m in multipliers.items())
            chosen = priced.argmin(axis=1)
            met = all(
                groups.costs[name][np.arange(len(chosen)), chosen].sum() <= groups.budgets[name]
                for name in names
            )
            low, high = (low, middle) if met else (middle, high)
            if high - low < 1e-6:
                break
        yield {name: scale * 2.0**high * u for name, u in unit.items()}
        yield {name: scale * 2.0**low * u for name, u in unit.items()}
