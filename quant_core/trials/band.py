"""The smallest file inside an accuracy band: bisection over sizes, each judged by a real file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from quant_core.errors import InfeasibleBudgetError
from quant_core.spec import AccuracyBand, BitPlan
from quant_core.trials.judge import Verdict

MOST_EVALUATIONS = 8

_CLOSE = 1.005
_LEAST_GAIN = 1.25
"""How many times less a file must lose that comes in a later way and is outside all the same: by 1 dB."""
_CURVE = 2
"""Smaller files measured for the curve where even the best is outside."""

Made = TypeVar("Made")


@dataclass(frozen=True)
class Tried(Generic[Made]):
    """One file.

    Attributes:
        plan: Its plan.
        size: Its bytes.
        made: What was made of it.
        verdict: How it was judged.
    """

    plan: BitPlan
    size: int
    made: Made
    verdict: Verdict


@dataclass(frozen=True)
class Outcome(Generic[Made]):
    """How a search ended.

    Attributes:
        tried: Every file, in order.
        chosen: Position of the result among them.
        way: Position of the way that made it.
    """

    tried: tuple[Tried[Made], ...]
    chosen: int
    way: int


def search_band(
    band: AccuracyBand,
    smallest: int,
    largest: int,
    ways: Iterable[Callable[[int], Tried[Made]]],
    *,
    most: int = MOST_EVALUATIONS,
) -> Outcome[Made]:
    """Find the smallest file inside a band.

    Sizes are bisected on a logarithmic scale between a file inside and the smallest one, which holds as far as a
    larger file of the same front is no worse. While the largest lies outside, it is made in the next way; the first way
    that brings it inside is the one to search sizes with. If none does, the first whose estimate is inside comes back,
    else what is best by its estimate, a later way only where it loses a fifth less, with some smaller files for the
    curve: on few samples the bound says more of chance than of the file.

    Args:
        band: The band.
        smallest: Bytes of the smallest file there is.
        largest: Most bytes a file may have.
        ways: Each makes and judges the best file within so many bytes; the one to be preferred first. The next is asked
            for when the file of the last is outside; what then fits no other budget ends them.
        most: Most files to make.

    Returns:
        Every file and which is the result.

    Raises:
        InfeasibleBudgetError: If another budget forbids the first way's largest file.
    """
    tried: list[Tried[Made]] = []
    made_by: list[Callable[[int], Tried[Made]]] = []
    for attempt in ways:
        try:
            tried.append(attempt(largest))
        except InfeasibleBudgetError:
            if not tried:
                raise
            break
        made_by.append(attempt)
        if tried[-1].verdict.inside:
            break
    best = way = len(tried) - 1
    if not tried[best].verdict.inside:
        for step in range(_CURVE):
            with suppress(InfeasibleBudgetError):  # another budget needs more bytes than this
                tried.append(made_by[0](_between(smallest, tried[0].size, (step + 1) / (_CURVE + 1))))
        best = _least_bad(band, tried, len(made_by))
        return Outcome(tuple(tried), best, best if best <= way else 0)
    outside = smallest - 1
    while len(tried) < most:
        high = tried[best].size
        if high <= outside + 1 or high / max(outside, 1) < _CLOSE:
            break
        middle = _between(max(outside, 1), high, 0.5)
        try:
            found = attempt(max(middle, smallest))
        except InfeasibleBudgetError:  # another budget needs more bytes than this
            outside = middle
            continue
        tried.append(found)
        if found.verdict.inside and found.size < high:
            best = len(tried) - 1
        else:
            outside = max(middle, found.size) if found.size < high else middle
    return Outcome(tuple(tried), best, way)


def nearer(band: AccuracyBand, first: Verdict, second: Verdict) -> bool:
    """Tell whether one file keeps a band at least as well as another.

    Args:
        band: The band.
        first: Verdict on the one.
        second: Verdict on the other.

    Returns:
        True if it is inside where the other is not, or no worse in what counts there: the bound inside, the estimate
        outside.
    """
    return _rank(band, first) <= _rank(band, second)


def explain_end(band: AccuracyBand, best: Tried[Made], confidence: float, samples: int, fewest: float) -> str:
    """Say how a search ended.

    Args:
        band: The band.
        best: Its result.
        confidence: How sure it was to be that the result keeps the band.
        samples: Samples that files were judged on.
        fewest: Samples below which this cannot be shown of any file.

    Returns:
        One or two sentences.
    """
    verdict, sure = best.verdict, f"with {100 * confidence:g}% confidence"
    value = verdict.value if verdict.expected is None else verdict.expected
    if samples < fewest:
        needed = "no number of samples can" if fewest == math.inf else f"{fewest:,} would be needed"
        found = (
            f"The smallest file measured that keeps it by its estimate, {value:.4g}, has {best.size:,} bytes."
            if verdict.inside
            else f"Nor does any plan measured keep it by its estimate: the best, {best.size:,} bytes, has {value:.4g}."
        )
        return f"{samples:,} samples cannot show {sure} that a file keeps {band}; {needed}. {found}"
    assert verdict.bound is not None
    if verdict.inside:
        return (
            f"the smallest file measured that keeps {band} {sure} has {best.size:,} bytes: {value:.4g} by "
            f"{samples:,} samples, and no worse than {verdict.bound:.4g} among all."
        )
    remedy = "Allow more bytes, more bits or a wider band"
    if verdict.needed is not None and verdict.needed > samples:
        remedy = (
            f"It would take about {verdict.needed:,} judging samples to show that it does. Give more samples, ask for "
            "less confidence, or allow more bytes, more bits or a wider band"
        )
    return (
        f"no plan measured keeps {band} {sure}: the best, {best.size:,} bytes, has {value:.4g}, which "
        f"{samples:,} samples bound by {verdict.bound:.4g}. {remedy}."
    )


def _between(low: int, high: int, share: float) -> int:
    return round(math.exp((1 - share) * math.log(low) + share * math.log(high)))


def _least_bad(band: AccuracyBand, tried: Sequence[Tried[Made]], ways: int) -> int:
    """Position of what comes back of files outside, the first of which are the largest of each way."""
    near = [place for place in range(ways) if band.holds(_estimate(band, tried[place].verdict))]
    if near:
        return near[0]
    lost = [_lost(band, made.verdict) for made in tried]
    best = 0
    for place in range(1, ways):
        if lost[best] >= _LEAST_GAIN * lost[place]:
            best = place
    fast = [0, *range(ways, len(tried))]
    return best or min(fast, key=lambda place: _rank(band, tried[place].verdict))


def _lost(band: AccuracyBand, verdict: Verdict) -> float:
    """What a file loses, from 0 for nothing: of an SQNR the share of noise, of a cosine what it lacks of 1."""
    value = _estimate(band, verdict)
    if band.metric == "sqnr":
        return 10 ** (-value / 10)
    return max(0.0, 1 - value if band.metric == "cosine" else value)


def _estimate(band: AccuracyBand, verdict: Verdict) -> float:
    """What is held against a band, chance aside."""
    return replace(verdict, bound=None).worst(band)


def _rank(band: AccuracyBand, verdict: Verdict) -> tuple[bool, float]:
    """How good a file is, the best first."""
    value = verdict.worst(band) if verdict.inside else _estimate(band, verdict)
    return not verdict.inside, value - band.limit if band.falls else band.limit - value
