"""From scores, costs and limits to a bit plan with its reasons, and to the Pareto front of whole files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.file_costs import all_widths, smallest_kept, smallest_reachable, width_sets
from quant_core.allocation.ompq import ompq_scores
from quant_core.allocation.peak_memory import check_peak, explain_peak, spell_out
from quant_core.allocation.plan_problem import BYTES, PEAK_MEMORY, PlanProblem
from quant_core.allocation.reasons import explain_bits
from quant_core.allocation.solver.front import pareto_front
from quant_core.allocation.solver.infeasible import with_rules
from quant_core.allocation.solver.monotone import solve_monotone
from quant_core.allocation.solver.problem import Plan, Problem
from quant_core.allocation.solver.solve import solve
from quant_core.errors import InfeasibleBudgetError, NonFiniteError, SpecError
from quant_core.spec import BitPlan, LayerPlan, ParetoFront, ParetoPoint
from quant_core.spec.width import activation_of, sparse_of, weight_of

Limits = Mapping[str, float]
"""Cost name, `bytes` among them -> the most a plan may cost."""


def plan_bits(problem: PlanProblem, limits: Limits, by: PlanProblem | None = None) -> BitPlan:
    """Choose the bits of least predicted loss within every limit.

    Args:
        problem: Scores, candidates, costs.
        limits: Limits by cost.
        by: The same with the scores to minimise, where these are not those that foretell the loss.

    Returns:
        The plan, every layer with its reason.

    Raises:
        InfeasibleBudgetError: If no plan fits; the message gives the smallest reachable value.
        SpecError: If a limit names a cost that is not known, or the rules contradict each other.
        NonFiniteError: If a layer has no choice with a finite score.
    """
    known = (BYTES, *problem.costs, *([PEAK_MEMORY] if problem.peaks else []))
    for name in limits:
        if name not in known:
            raise SpecError(
                f"a limit on {name} needs what every layer takes of it; known are {', '.join(known)}.",
                remedy="Measure a latency table with `bitwright profile` and name it, or drop the limit."
                if name == "latency"
                else "Drop the limit, or make the tables again.",
                where=name,
            )
    solved = problem if by is None else by
    finite = scored_candidates(problem)
    check_peak(problem, finite, limits)
    budget = int(limits[BYTES]) if BYTES in limits else None
    best, failure = _best(solved, finite, limits)
    if best is None:
        if budget is not None:
            _check_bytes(finite, problem, budget)
        if PEAK_MEMORY in limits:

            def attempt(tried: Limits) -> Mapping[str, int] | None:
                found, _ = _best(problem, finite, tried)
                return None if found is None else _by_name(problem, *found)

            failure = explain_peak(problem, limits, attempt) or failure
        assert (
            failure is not None
        )  # the first set holds every width, and width_sets leaves each layer a choice
        error = with_rules(failure, [choice.reason for choice in finite.values()])
        raise error
    plan, _ = best
    chosen = _by_name(problem, *best)
    return describe(problem, chosen, limits, optimal=plan.optimal, gap=plan.gap, solver=plan.solver)


def _best(
    problem: PlanProblem, finite: Mapping[str, Candidates], limits: Limits
) -> tuple[tuple[Plan, tuple[int, ...]] | None, InfeasibleBudgetError | None]:
    """The best plan over all sets of widths, with its set; or why there is none."""
    budget = int(limits[BYTES]) if BYTES in limits else None
    best: tuple[Plan, tuple[int, ...]] | None = None
    failure: InfeasibleBudgetError | None = None
    for widths in width_sets(finite, problem.files, budget):
        if not _ties_hold(finite, problem, widths):
            continue
        try:
            plan = _solve(problem, limits, widths)
        except InfeasibleBudgetError as error:
            # Bytes are too few in some sets of widths; where they are in all, `_check_bytes` tells.
            if failure is None or failure.where == BYTES:
                failure = error
            continue
        if best is None or plan.objective < best[0].objective:
            best = plan, widths
    return best, failure


def _by_name(problem: PlanProblem, plan: Plan, widths: Sequence[int]) -> dict[str, int]:
    return dict(zip(problem.names, (widths[index] for index in plan.choice), strict=True))


def describe(
    problem: PlanProblem,
    bits: Mapping[str, int],
    limits: Limits,
    *,
    optimal: bool,
    gap: float | None,
    solver: str,
) -> BitPlan:
    """Write a plan down with its costs and reasons.

    Args:
        problem: What it answers.
        bits: Layer name -> bits.
        limits: Limits it was made under.
        optimal: Whether nothing better exists, by proof.
        gap: Largest relative distance to the best predicted loss, or None if nothing is known of it.
        solver: What found it.

    Returns:
        The plan.
    """
    return BitPlan(
        layers=tuple(
            LayerPlan(
                name=name,
                bits=weight_of(width),
                activation_bits=activation_of(width),
                sparse=sparse_of(width) or None,
                reason=explain_bits(name, width, problem),
            )
            for name, width in bits.items()
        ),
        predicted_loss=problem.loss(bits),
        predicted_bytes=problem.files.total(bits),
        budget_bytes=int(limits[BYTES]) if BYTES in limits else None,
        optimal=optimal,
        gap=gap,
        solver=solver,
        costs={
            name: problem.cost(name, bits)
            for name in (*problem.costs, *([PEAK_MEMORY] if problem.peaks else []))
        },
        limits={name: limit for name, limit in limits.items() if name != BYTES},
    )


def fits(problem: PlanProblem, bits: Mapping[str, int], limits: Limits) -> bool:
    """Hold a plan against every limit.

    Args:
        problem: The costs.
        bits: Layer name -> bits.
        limits: Limits by cost.

    Returns:
        True if all are kept.
    """
    return all(
        (cost := problem.cost(name, bits)) <= limit or math.isclose(cost, limit, rel_tol=1e-12)
        for name, limit in limits.items()
    )


def file_front(problem: PlanProblem) -> ParetoFront:
    """Give every non-dominated plan with the size of its file, by the sum of scores alone.

    It trades loss for bytes and knows no other limit; a peak of memory does not add up over layers and has no front.

    Args:
        problem: Scores, candidates, costs.

    Returns:
        The front, smallest file first.
    """
    widths = all_widths(problem.candidates)
    front = pareto_front(replace(problem, pairs=None).matrix(widths), cost=BYTES)
    choices = front.choices()
    sizes = problem.files.totals(problem.names, widths, choices)
    # Unpacking functions come on top of the additive bytes and can undo a small gain.
    smallest_behind = np.minimum.accumulate(sizes[::-1])[::-1]
    kept = np.append(sizes[:-1] < smallest_behind[1:], True)
    rows = choices[kept]

    def told(function: Callable[[int], Any]) -> Iterable[tuple[Any, ...]]:
        values = [function(width) for width in widths]
        if not any(values):
            return repeat((), len(rows))
        known = np.array([bool(value) for value in values])[rows].any(axis=1).tolist()
        laid = np.array(values, dtype=object)[rows].tolist()
        return (tuple(row) if any_known else () for row, any_known in zip(laid, known, strict=True))

    # Nothing is left to be checked in them, and there are tens of thousands.
    points = [
        ParetoPoint.model_construct(
            bytes=size, predicted_loss=loss, bits=bits, activation_bits=activation_bits, sparse=sparse
        )
        for size, loss, bits, activation_bits, sparse in zip(
            sizes[kept].astype(np.int64).tolist(),
            front.objective[kept].tolist(),
            map(tuple, np.array([weight_of(width) for width in widths])[rows].tolist()),
            told(activation_of),
            told(sparse_of),
            strict=True,
        )
    ]
    return ParetoFront(layers=problem.names, points=tuple(points))


def scored_candidates(problem: PlanProblem) -> dict[str, Candidates]:
    """Leave out the widths that have no score, as of sensitivities that were estimated for other candidates.

    Args:
        problem: Candidates and scores.

    Returns:
        Layer name -> what it can be given.

    Raises:
        NonFiniteError: If a layer has no choice with a finite score.
    """
    finite = {
        name: Candidates(
            tuple(
                b
                for b in choice.bits
                if math.isfinite(problem.scores[name].get(b, math.nan))
                # Rules that order layers know bits alone.
                and (problem.allocation == "optimal" or not sparse_of(b))
            ),
            choice.reason,
        )
        for name, choice in problem.candidates.items()
    }
    for name, choice in finite.items():
        if not choice.bits:
            raise NonFiniteError(
                "no allowed bit-width of this layer has a finite score.",
                remedy="Exclude the layer, or check its weights and the samples.",
                where=name,
            )
    return finite


def _ties_hold(finite: Mapping[str, Candidates], problem: PlanProblem, widths: Sequence[int]) -> bool:
    # The set of all widths goes to the solver even so: its message names the layers.
    if tuple(widths) == all_widths(finite):
        return True
    return all(
        set(widths).intersection(*(finite[name].bits for name in group)) for group in problem.ties if group
    )


def _solve(problem: PlanProblem, limits: Limits, widths: Sequence[int]) -> Plan:
    matrix = problem.matrix(widths, peaks=PEAK_MEMORY in limits)
    budgets = spell_out(problem, limits)
    if BYTES in budgets:
        # First, so that a refusal beside them names the other limit: these bytes are not those of the whole file.
        budgets = {BYTES: 0.0, **budgets}
        budgets[BYTES] -= problem.files.base + problem.files.overhead(widths)
    matrix = replace(matrix, budgets=budgets)
    if problem.allocation == "optimal":
        return solve(matrix)
    priority = np.array([_priority(problem, name) for name in problem.names])
    if problem.allocation == "hawq_v2":
        if PEAK_MEMORY in limits:
            raise SpecError(
                "hawq_v2 is solved for one cost that adds up, and a peak is a limit on every step of a run.",
                remedy="Use the allocation `optimal`, or limit bytes, effective bits, bops or latency.",
                where=PEAK_MEMORY,
            )
        order = np.argsort(-priority, kind="stable").tolist()
        return solve_monotone(replace(matrix, interactions=None), order)
    return _ompq(matrix, priority, widths)


def _ompq(matrix: Problem, importance: np.ndarray, widths: Sequence[int]) -> Plan:
    scores = ompq_scores(importance.tolist(), widths, matrix.names)
    plan = solve(replace(matrix, sensitivity=scores, interactions=None))
    return replace(plan, solver=f"ompq ({plan.solver})")


def _priority(problem: PlanProblem, name: str) -> float:
    value = problem.priority.get(name)
    if value is None or not math.isfinite(value):
        what = "finite trace" if problem.allocation == "hawq_v2" else "importance"
        raise SpecError(
            f"this layer has no {what}, which {problem.allocation} goes by.",
            remedy="Use the allocation `optimal`, or exclude the layer.",
            where=name,
        )
    return value


def _check_bytes(finite: Mapping[str, Candidates], problem: PlanProblem, budget: int) -> None:
    if smallest_reachable(finite, problem.files, problem.ties) <= budget:
        return
    smallest = smallest_kept(finite, problem.files, problem.ties)
    rules = sorted({choice.reason for choice in finite.values() if choice.reason is not None})
    standing = f" with {'; '.join(rules)}" if rules else ""
    raise InfeasibleBudgetError(
        f"a budget of {budget} bytes cannot be met: the smallest reachable file is {smallest} bytes{standing}.",
        remedy=f"Allow at least {smallest} bytes, fewer bits, or fewer pins.",
        where="size",
    )
