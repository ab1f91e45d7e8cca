"""From scores and bytes to a bit plan with its reasons, and to the Pareto front of whole files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.front import pareto_front
from quant_core.allocation.problem import Plan, Problem
from quant_core.allocation.solve import solve
from quant_core.errors import InfeasibleBudgetError, NonFiniteError
from quant_core.spec import BitPlan, LayerPlan, ParetoFront, ParetoPoint, SensitivityTable, format_bits

_BYTES = "bytes"
_NEGLIGIBLE = 1e-3


@dataclass(frozen=True)
class FileCosts:
    """What a file costs: `base + sum of layers + overhead of the widths in use`.

    Attributes:
        base: Bytes of everything but the weights.
        layers: Layer name -> bits -> bytes.
        overhead: Bytes that a set of widths costs once a file.
    """

    base: int
    layers: Mapping[str, Mapping[int, int]]
    overhead: Callable[[Iterable[int]], int]

    def total(self, bits: Mapping[str, int]) -> int:
        """Predict a file's size.

        Args:
            bits: Layer name -> bits.

        Returns:
            Bytes.
        """
        weights = sum(self.layers[name][width] for name, width in bits.items())
        return self.base + weights + self.overhead(bits.values())


def plan_bits(
    table: SensitivityTable, candidates: Mapping[str, Candidates], costs: FileCosts, budget: int
) -> BitPlan:
    """Choose the bits of least predicted loss whose file fits the budget.

    Args:
        table: Expected loss increase by layer and bits; non-finite scores rule a choice out.
        candidates: Layer name -> bits it may be given.
        costs: File costs.
        budget: Largest file, in bytes.

    Returns:
        The plan, every layer with its reason.

    Raises:
        InfeasibleBudgetError: If no plan fits; the message gives the smallest reachable size.
    """
    best: tuple[Plan, tuple[int, ...]] | None = None
    for widths in _width_sets(candidates, costs, budget):
        plan = _solve(table, candidates, costs, budget, widths)
        if plan is not None and (best is None or plan.objective < best[0].objective):
            best = plan, widths
    if best is None:
        _refuse(candidates, costs, budget)
    plan, widths = best
    chosen = dict(zip(candidates, (widths[index] for index in plan.choice), strict=True))
    return BitPlan(
        layers=tuple(
            LayerPlan(name=name, bits=bits, reason=_reason(name, bits, table, candidates[name], costs))
            for name, bits in chosen.items()
        ),
        predicted_loss=plan.objective,
        predicted_bytes=costs.total(chosen),
        budget_bytes=budget,
        optimal=plan.optimal,
        solver=plan.solver,
    )


def file_front(
    table: SensitivityTable, candidates: Mapping[str, Candidates], costs: FileCosts
) -> ParetoFront:
    """Give every non-dominated plan with the size of its file.

    Args:
        table: Expected loss increase by layer and bits.
        candidates: Layer name -> bits it may be given.
        costs: File costs.

    Returns:
        The front, smallest file first.
    """
    widths = _all_widths(candidates)
    front = pareto_front(_problem(table, candidates, costs, widths), cost=_BYTES)
    points: list[ParetoPoint] = []
    for point in reversed(front):
        bits = tuple(widths[index] for index in point.choice)
        size = costs.total(dict(zip(candidates, bits, strict=True)))
        # Unpacking functions come on top of the additive bytes and can undo a small gain.
        if not points or size < points[-1].bytes:
            points.append(ParetoPoint(bytes=size, predicted_loss=point.objective, bits=bits))
    return ParetoFront(layers=tuple(candidates), points=tuple(reversed(points)))


def _all_widths(candidates: Mapping[str, Candidates]) -> tuple[int, ...]:
    return tuple(sorted({bits for choice in candidates.values() for bits in choice.bits}))


def _width_sets(
    candidates: Mapping[str, Candidates], costs: FileCosts, budget: int
) -> Iterable[tuple[int, ...]]:
    """Sets of widths worth solving under: a width whose function is not stored leaves its bytes to the weights."""
    widths = _all_widths(candidates)
    costly = [width for width in widths if costs.overhead([width]) > 0]
    if costs.overhead(widths) < budget * _NEGLIGIBLE:
        return [widths]
    return [
        tuple(width for width in widths if width not in left_out)
        for count in range(len(costly) + 1)
        for left_out in combinations(costly, count)
    ]


def _solve(
    table: SensitivityTable,
    candidates: Mapping[str, Candidates],
    costs: FileCosts,
    budget: int,
    widths: Sequence[int],
) -> Plan | None:
    if any(not set(choice.bits) & set(widths) for choice in candidates.values()):
        return None
    problem = _problem(table, candidates, costs, widths)
    limit = budget - costs.base - costs.overhead(widths)
    try:
        return solve(replace(problem, budgets={_BYTES: limit}))
    except InfeasibleBudgetError:
        return None


def _problem(
    table: SensitivityTable, candidates: Mapping[str, Candidates], costs: FileCosts, widths: Sequence[int]
) -> Problem:
    rows = {row.name: row.sensitivity for row in table.layers}
    scores: npt.NDArray[np.float64] = np.full((len(candidates), len(widths)), np.nan)
    sizes: npt.NDArray[np.float64] = np.zeros_like(scores)
    for i, (name, choice) in enumerate(candidates.items()):
        for j, width in enumerate(widths):
            if width in choice.bits:
                scores[i, j] = rows[name].get(width, np.nan)
                sizes[i, j] = costs.layers[name][width]
    allowed = np.isfinite(scores)
    for i, name in enumerate(candidates):
        if not allowed[i].any():
            raise NonFiniteError(
                "no allowed bit-width of this layer has a finite score.",
                remedy="Exclude the layer, or check its weights and the samples.",
                where=name,
            )
    return Problem(
        sensitivity=scores,
        costs={_BYTES: sizes},
        allowed=allowed,
        names=tuple(candidates),
        labels=tuple(f"{format_bits(width)} bits" for width in widths),
    )


def _refuse(candidates: Mapping[str, Candidates], costs: FileCosts, budget: int) -> NoReturn:
    smallest = smallest_reachable(candidates, costs)
    rules = sorted({choice.reason for choice in candidates.values() if choice.reason is not None})
    standing = f" with {'; '.join(rules)}" if rules else ""
    raise InfeasibleBudgetError(
        f"a budget of {budget} bytes cannot be met: the smallest reachable file is {smallest} bytes{standing}.",
        remedy=f"Allow at least {smallest} bytes, fewer bits, or fewer pins.",
        where="size",
    )


def smallest_reachable(candidates: Mapping[str, Candidates], costs: FileCosts) -> int:
    """Predict the smallest file any allowed plan gives.

    Args:
        candidates: Layer name -> bits it may be given.
        costs: File costs.

    Returns:
        Bytes.
    """
    sizes = []
    for widths in _width_sets(candidates, costs, budget=0):
        if all(set(choice.bits) & set(widths) for choice in candidates.values()):
            weights = sum(
                min(costs.layers[name][bits] for bits in choice.bits if bits in widths)
                for name, choice in candidates.items()
            )
            sizes.append(costs.base + weights + costs.overhead(widths))
    return min(sizes)


def _reason(name: str, bits: int, table: SensitivityTable, candidates: Candidates, costs: FileCosts) -> str:
    if len(candidates.bits) == 1:
        return candidates.reason or f"only {format_bits(bits)} bits are allowed"
    scores = next(row.sensitivity for row in table.layers if row.name == name)
    lost = [width for width in candidates.bits if not math.isfinite(scores.get(width, math.nan))]
    notes = [candidates.reason] if candidates.reason else []
    if lost:
        notes.append(f"non-finite at {', '.join(map(format_bits, lost))} bits")
    wider = next((w for w in candidates.bits if w > bits and w not in lost), None)
    if wider is None:
        notes.append("budget: the most bits allowed")
    else:
        gain = scores[bits] - scores[wider]
        price = costs.layers[name][wider] - costs.layers[name][bits]
        offer = f"{format_bits(wider)} bits would cost {price} bytes more"
        notes.append(f"budget: {offer} and lower the predicted loss by {gain:.3g}")
    return "; ".join(notes)
