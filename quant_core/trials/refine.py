"""Refinement around a plan: measure its neighbours, solve again with what they say, keep what lowers the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.plan_bits import Limits, plan_bits
from quant_core.allocation.plan_problem import PlanProblem
from quant_core.errors import InfeasibleBudgetError
from quant_core.spec import FLOAT_BITS
from quant_core.spec.progress import Tell
from quant_core.spec.trials import LayerMove, RefinementRound
from quant_core.spec.width import activation_of, rank, sparse_of, stored_of
from quant_core.trials.meter import Measured, Move, PlanMeter

MOST_ROUNDS = 3
_MACS = 1e12
"""Multiply-accumulates that refinement may spend: some twenty seconds on two cores."""

SURE = 2.0
"""Standard errors by which a plan must be better to be taken."""

_CHANGES = "changes"

Bits = Mapping[str, int]


def affordable_rounds(problem: PlanProblem, macs: int, samples: int) -> int:
    """Choose how many rounds to spend, counted in arithmetic so that the answer never depends on speed.

    Args:
        problem: Layers and candidates.
        macs: Multiply-accumulates of the network, a sample.
        samples: Samples that plans are measured on.

    Returns:
        At most three; none where even one would take too long.
    """
    # Two neighbours a layer, each run over half of the network on average; where activations are open, four, each run
    # over all of it; where outliers are, twice as many.
    widths = {width for choice in problem.candidates.values() for width in choice.bits}
    runs = len(problem.names) * (4 if any(map(activation_of, widths)) else 1)
    runs *= 2 if any(map(sparse_of, widths)) else 1
    return min(MOST_ROUNDS, int(_MACS / max(1, macs * samples * runs)))


def refine(
    problem: PlanProblem,
    bits: Bits,
    limits: Limits,
    meter: PlanMeter,
    *,
    rounds: int,
    on_progress: Tell,
    sure: float = SURE,
) -> tuple[Bits, tuple[RefinementRound, ...]]:
    """Lower the measured loss of a plan within its limits.

    Scores are taken with one layer rounded at a time, which misleads where many layers are rounded hard. A round
    measures every layer one width up and one down with all others as planned, and solves for the best sum of these
    changes among at most r layers within the limits. The plan found is measured as a whole: unless it is better by two
    standard errors of the difference over samples, r is halved and the round goes on, from all layers down to one. A
    round that lowers nothing ends the refinement.

    Args:
        problem: Candidates and costs.
        bits: The plan, layer name -> bits.
        limits: Limits by cost.
        meter: Measures plans.
        rounds: Most rounds.
        on_progress: Called with the fraction done and a message; may raise to stop.
        sure: Standard errors of the difference by which a plan must be better to be taken.

    Returns:
        The plan, at least as good as before by measurement, and what each round did.
    """
    told: list[RefinementRound] = []
    present = dict(bits)
    for number in range(rounds):
        before = meter.loss(present)
        moves = neighbours(problem, present)
        on_progress(number / rounds, f"round {number + 1}: measuring {len(moves)} neighbours of the plan")
        measured = meter.around(present, moves)
        local = _around(problem, present, moves, [loss - before.mean for loss in measured])
        better, tried = _try(local, present, limits, meter, before, sure)
        found = meter.loss(better).mean
        told.append(
            RefinementRound(
                neighbours=len(moves),
                tried=tried,
                before=before.mean,
                after=found,
                moves=tuple(
                    LayerMove(name=name, before=present[name], after=width)
                    for name, width in better.items()
                    if width != present[name]
                ),
            )
        )
        if better == present:
            break
        present = better
    return present, tuple(told)


def neighbours(problem: PlanProblem, bits: Bits) -> list[Move]:
    """List the plans that differ in one layer or tie group by one width.

    Args:
        problem: Candidates and ties.
        bits: The plan.

    Returns:
        What each of them changes.
    """
    groups = {name: group for group in problem.ties for name in group}
    moves: list[Move] = []
    for name in bits:
        group = groups.get(name, (name,))
        if name != group[0]:
            continue
        common = set.intersection(*(set(problem.candidates[member].bits) for member in group))
        widths = sorted(
            w for w in common if all(np.isfinite(problem.scores[m].get(w, np.nan)) for m in group)
        )
        moves += [dict.fromkeys(group, width) for width in _next(bits[name], widths)]
    return moves


def _next(width: int, widths: Sequence[int]) -> list[int]:
    """Widths one step away: of the weight, with outliers or without, and of the activations with the same weight."""
    alike = [w for w in widths if activation_of(w) == activation_of(width) or FLOAT_BITS in {w, width}]
    found = []
    for line in (
        sorted((w for w in alike if sparse_of(w) == 0 or w == width), key=rank),
        sorted(alike, key=rank),
        sorted((w for w in widths if stored_of(w) == stored_of(width)), key=rank),
    ):
        at = line.index(width)
        found += [line[to] for to in (at - 1, at + 1) if 0 <= to < len(line)]
    return list(dict.fromkeys(found))


def _around(problem: PlanProblem, bits: Bits, moves: Sequence[Move], changes: Sequence[float]) -> PlanProblem:
    """The problem with measured changes for scores, and a count of changed layers among its costs."""
    scores: dict[str, dict[int, float]] = {name: {width: 0.0} for name, width in bits.items()}
    for move, change in zip(moves, changes, strict=True):
        for place, (name, width) in enumerate(move.items()):
            scores[name][width] = change if place == 0 else 0.0
    return replace(
        problem,
        candidates={
            name: Candidates(tuple(sorted(scores[name])), choice.reason)
            for name, choice in problem.candidates.items()
        },
        scores=scores,
        costs={
            **problem.costs,
            _CHANGES: {name: {w: float(w != bits[name]) for w in scores[name]} for name in bits},
        },
        pairs=None,
        allocation="optimal",
    )


def _try(
    local: PlanProblem,
    present: dict[str, int],
    limits: Limits,
    meter: PlanMeter,
    before: Measured,
    sure: float,
) -> tuple[dict[str, int], int]:
    changes, tried = len(present), 0
    while changes >= 1:
        try:
            plan = plan_bits(local, {**limits, _CHANGES: float(changes)})
        except InfeasibleBudgetError:  # a plan over its limits by the margin of a file already written
            return present, tried
        if plan.predicted_loss >= 0:  # as it is where nothing moves
            return present, tried
        tried += 1
        if meter.loss(plan.widths).beats(before, sure):
            return plan.widths, tried
        moved = [name for name, width in plan.widths.items() if width != present[name]]
        changes = min(changes, len(moved)) // 2
    return present, tried
