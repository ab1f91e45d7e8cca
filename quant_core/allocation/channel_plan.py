"""Two widths for the channels of one layer: more bits for those that lose most, fewer for the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from quant_core.allocation.healing import healed
from quant_core.allocation.plan_problem import BYTES, PEAK_MEMORY, PlanProblem
from quant_core.allocation.solver.groups import group_layers
from quant_core.allocation.solver.problem import Problem
from quant_core.allocation.solver.relaxation import relax
from quant_core.spec.bits import FLOAT_BITS
from quant_core.spec.width import format_width, weight_of

_STEPS = 16
"""Parts of a layer's channels of which any number may be wide."""
_APART = 2
"""How many candidates the narrow bits may lie below the wide ones."""
_LEAST_GAIN = 0.95
"""Share of the plan's foretold loss that must not be exceeded."""
_FREE = (2, 4, 8)
"""Bits that a file unpacks without a function of its own."""

Limits = Mapping[str, float]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ChannelBits:
    """What the channels of one layer are given.

    Attributes:
        bits: Bits of the wide channels.
        narrow: Bits of the others; None where there are none.
        wide: How many channels are wide, those of the largest shares; not counted where all are.
    """

    bits: int
    narrow: int | None = None
    wide: int = 0


@dataclass(frozen=True)
class ChannelPlan:
    """Widths of all layers, of some of them by channel.

    Attributes:
        layers: Layer name -> what its channels are given.
        losses: Layer name -> its predicted loss increase.
        costs: Costs by name, `bytes` of the file among them.
    """

    layers: Mapping[str, ChannelBits]
    losses: Mapping[str, float]
    costs: Mapping[str, float]


@dataclass(frozen=True)
class _Option:
    given: ChannelBits
    score: float
    loss: float
    costs: Mapping[str, float] = field(default_factory=dict)


def plan_channels(
    problem: PlanProblem,
    bits: Mapping[str, int],
    limits: Limits,
    shares: Mapping[str, Floats],
    apart: Mapping[str, Mapping[int, float]],
    function: int,
) -> ChannelPlan | None:
    """Choose widths by channel, of least loss within every limit, or else within the bytes of a plan.

    A layer whose channels c make up shares s_c of its loss, with scores L_b at b bits, has the loss
    `L_w sum_wide s_c + L_n sum_narrow s_c` with wide and narrow ones; of so many wide ones those of the largest shares
    are best. What it costs goes by the number of its channels of either width. A layer is offered each number of
    sixteenths of its channels at each two of its widths that lie at most two apart, and one width for all, as far as
    these lie on the convex hull of loss over bytes. Options so fine leave little between the relaxation and the best
    plan (Everett, 1963), which is taken as it is, with what it leaves of the limits spent.

    Args:
        problem: Scores, candidates and costs.
        bits: The plan by layer, Layer name -> width. Layers that it leaves in float stay so, no other joins them, and
            only the widths that it uses, or that need no function, are offered.
        limits: Limits by cost.
        shares: Layer name -> share of its loss by channel, of the layers whose channels may differ.
        apart: Layer name -> bits of the narrow channels -> bytes that two widths take beside the codes.
        function: Bytes of what puts channels in order, once a file.

    Returns:
        The plan; None where it promises less than a twentieth less loss.
    """
    if problem.ties or problem.pairs is not None or problem.allocation != "optimal" or PEAK_MEMORY in limits:
        return None
    solved, known = healed(problem), {*bits.values(), *_FREE}
    files = problem.files
    overhead = files.base + files.overhead(sorted(known)) + function
    budgets = dict(limits) | {BYTES: limits.get(BYTES, problem.cost(BYTES, bits)) - overhead}
    offered = [
        _hull([*_options(problem, solved, name, bits[name], known, shares.get(name), apart.get(name, {}))])
        for name in problem.names
    ]
    most = max(map(len, offered))
    allowed = np.array([[at < len(options) for at in range(most)] for options in offered])

    def table(values: list[list[float]], rest: float) -> Floats:
        return np.array([[*row, *[rest] * (most - len(row))] for row in values])

    matrix = Problem(
        table([[option.score for option in options] for options in offered], np.nan),
        {name: table([[o.costs[name] for o in options] for options in offered], 0.0) for name in budgets},
        budgets,
        allowed=allowed,
        names=problem.names,
        labels=tuple(map(str, range(most))),
    )
    groups = group_layers(matrix)
    relaxed = relax(groups)
    if relaxed.rows is None:  # what puts channels in order leaves too little for the codes
        return None
    chosen = [options[at] for options, at in zip(offered, groups.expand(relaxed.rows), strict=True)]
    before = sum(solved.scores[name][width] for name, width in bits.items())
    if sum(option.score for option in chosen) > _LEAST_GAIN * before:
        return None
    costs = {name: sum(option.costs[name] for option in chosen) for name in (BYTES, *problem.costs)}
    used = {width for o in chosen for width in (o.given.bits, o.given.narrow) if width is not None}
    costs[BYTES] += files.base + files.overhead(sorted(used)) + function
    return ChannelPlan(
        {name: option.given for name, option in zip(problem.names, chosen, strict=True)},
        {name: option.loss for name, option in zip(problem.names, chosen, strict=True)},
        costs,
    )


def _options(
    problem: PlanProblem,
    solved: PlanProblem,
    name: str,
    planned: int,
    known: set[int],
    shares: Floats | None,
    apart: Mapping[int, float],
) -> Iterator[_Option]:
    """What a layer may be given."""
    costs = {BYTES: problem.files.layers[name]} | {cost: rows[name] for cost, rows in problem.costs.items()}
    scores, losses = solved.scores[name], problem.scores[name]

    def whole(width: int) -> _Option:
        at = {cost: float(row[width]) for cost, row in costs.items()}
        return _Option(ChannelBits(width), scores[width], losses[width], at)

    if planned == FLOAT_BITS or weight_of(planned) != planned:
        yield whole(planned)
        return
    widths = sorted(
        width
        for width in problem.candidates[name].bits
        if width in known and width != FLOAT_BITS and math.isfinite(scores.get(width, math.nan))
    )
    yield from map(whole, widths)
    if shares is None:
        return
    count = len(shares)
    lost = np.concatenate([[0.0], np.cumsum(np.sort(shares)[::-1])])
    for low, narrow in enumerate(widths):
        for bits in widths[low + 1 : low + 1 + _APART]:
            for wide in sorted({round(count * step / _STEPS) for step in range(1, _STEPS)} - {0, count}):
                part, weight = wide / count, float(lost[wide])
                at = {cost: part * row[bits] + (1 - part) * row[narrow] for cost, row in costs.items()}
                yield _Option(
                    ChannelBits(bits, narrow, wide),
                    weight * scores[bits] + (1 - weight) * scores[narrow],
                    weight * losses[bits] + (1 - weight) * losses[narrow],
                    at | {BYTES: at[BYTES] + apart.get(narrow, 0.0)},
                )


def _hull(options: list[_Option]) -> list[_Option]:
    """Those on the lower convex hull of the score over bytes."""
    corners: list[_Option] = []

    def slope(first: _Option, second: _Option) -> float:
        return (second.score - first.score) / (second.costs[BYTES] - first.costs[BYTES])

    for option in sorted(options, key=lambda option: (option.costs[BYTES], option.score)):
        if corners and option.score >= corners[-1].score:
            continue
        while len(corners) > 1 and slope(corners[-2], corners[-1]) >= slope(corners[-1], option):
            corners.pop()
        corners.append(option)
    return corners


def told(given: ChannelBits, count: int) -> str:
    """Say what the channels of a layer are given.

    Args:
        given: Their widths.
        count: How many there are.

    Returns:
        Such as `5 bits for 60 of 480 channels, 3 for the others`.
    """
    if given.narrow is None:
        return format_width(given.bits)
    return f"{format_width(given.bits)} for {given.wide} of {count} channels, {given.narrow} for the others"
