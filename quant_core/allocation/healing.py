"""What is left of a layer's loss once the layers behind it are rounded for what they are really given."""

from __future__ import annotations

from dataclasses import replace

from quant_core.allocation.plan_problem import PlanProblem

_LEAST, _POWER = 0.4, 4


def healed(problem: PlanProblem) -> PlanProblem:
    """Give a problem whose scores count what rounding that follows leaves of them.

    Scores are of one layer rounded while all others are float. Where layers are followed, each is fitted to the float
    network's output from the inputs that the rounded layers before it give, and takes back part of what these lost;
    nothing takes back what the last ones lose. Of the score of a layer with k of n followed layers behind it counts
    `0.4 + 0.6 (1 - k / n)^4`.

    Args:
        problem: The problem, candidates in the order of execution.

    Returns:
        The problem to solve; its scores foretell no loss. As it was where nothing is followed, where pairs count, and
        where the rule is another's.
    """
    followed = frozenset(problem.followed)
    if not followed or problem.pairs is not None or problem.allocation != "optimal":
        return problem
    scores, behind = {}, sum(name in followed for name in problem.candidates)
    count = max(1, behind)
    for name in problem.candidates:
        behind -= name in followed
        share = _LEAST + (1 - _LEAST) * (1 - behind / count) ** _POWER
        scores[name] = {width: share * score for width, score in problem.scores[name].items()}
    return replace(problem, scores=scores)
