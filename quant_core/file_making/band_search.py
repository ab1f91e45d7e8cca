"""The smallest file inside an accuracy band, as a job searches for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from quant_core.allocation.file_costs import smallest_reachable
from quant_core.allocation.plan_bits import Limits, plan_bits
from quant_core.allocation.plan_problem import BYTES, EFFECTIVE_BITS
from quant_core.file_making.file_maker import FileMaker, Made
from quant_core.preparation.float_speed import may_leave_integers
from quant_core.spec import BandEvaluation, BandSearch
from quant_core.trials import MOST_EVALUATIONS, Judge, Tried, explain_end, nearer, search_band

_REACHES = (0.5, math.inf)
"""Shares of the file's time that layers in float may take, one after another while the band is missed."""


def find_in_band(maker: FileMaker, limits: Limits, judge: Judge) -> tuple[Made, BandSearch]:
    """Search for the smallest file inside a band; every file is judged as it would be handed out.

    Where the largest file with 8-bit activations is outside, more and more layers run in float, for as long as that is
    needed; sizes are then searched with these.

    If measuring around the result changes its plan, the last evaluation is of that one, which is kept if it is no
    larger and no worse.

    Args:
        maker: Makes files.
        limits: The other limits of the request.
        judge: Runs files in onnxruntime.

    Returns:
        The result, written, and how it was found.
    """
    maker = maker.with_all_samples()

    def attempt(maker: FileMaker, size: int, *, quick: bool = True) -> Tried[Made]:
        made = maker.make({**limits, BYTES: size}, quick=quick)
        files.append(made)
        with maker.journal.timed("verification"):
            verdict = judge.judge(maker.path)
        told = f"{made.size} bytes: {judge.band.metric} {verdict.value:.4g} on {judge.samples} samples"
        maker.journal.tell("allocation", 0, told)
        return Tried(made.choice.plan, made.size, made, verdict)

    largest = plan_bits(maker.problem, limits).predicted_bytes
    smallest = smallest_reachable(maker.problem.candidates, maker.problem.files, maker.problem.ties)
    makers, files = [maker], list[Made]()

    def ways() -> Iterator[Callable[[int], Tried[Made]]]:
        yield partial(attempt, maker)
        for slower in _slower(maker):
            if not _rounds_freely(slower, files[-1]):
                return
            makers.append(slower)
            yield partial(attempt, slower)

    found = search_band(judge.band, smallest, largest, ways(), most=MOST_EVALUATIONS - 1)
    best, maker = found.tried[found.chosen], makers[found.way]
    tried, chosen = found.tried, found.chosen
    by_layer = best.made.by_layer.widths
    planned = [trial.bytes for trial in best.made.settled.trials if trial.chosen]  # by channel, if it is so
    limit = max([maker.problem.files.total(by_layer), *planned])
    if maker.settle({**limits, BYTES: limit}).plan.widths != by_layer:
        refined = attempt(maker, limit + maker.room.whole, quick=False)
        tried = (*tried, refined)
        if refined.size <= best.size and nearer(judge.band, refined.verdict, best.verdict):
            best, chosen = refined, len(tried) - 1
    maker.write(best.made.choice)
    return best.made, BandSearch(
        band=judge.band,
        samples=judge.samples,
        labelled=judge.labelled,
        evaluations=tuple(map(_evaluation, tried)),
        chosen=chosen,
        confidence=judge.confidence,
        met=best.verdict.inside and best.verdict.bound is not None,
        reason=explain_end(judge.band, best, judge.confidence, judge.samples, judge.fewest),
    )


def _slower(maker: FileMaker) -> Iterator[FileMaker]:
    """Makers of files with more and more layers in float, at last all; none where a request bounds these."""
    if maker.spec.float_islands is None and may_leave_integers(maker.spec, maker.job.target):
        for reach in _REACHES:
            yield replace(maker, islands=None, reach=reach)


def _rounds_freely(maker: FileMaker, made: Made) -> bool:
    """Whether a file has layers that round activations and could run in float: else it cannot be made otherwise."""
    free = {layer.name for layer in maker.job.layers if layer.activation_bits is None}
    forms = made.choice.placement.forms
    return any(form in {"static", "dynamic"} and name in free for name, form in forms.items())


def _evaluation(tried: Tried[Made]) -> BandEvaluation:
    return BandEvaluation(
        bytes=tried.size,
        predicted_loss=tried.plan.predicted_loss,
        effective_bits=tried.plan.costs[EFFECTIVE_BITS],
        value=tried.verdict.value,
        low=tried.verdict.low,
        high=tried.verdict.high,
        expected=tried.verdict.expected,
        bound=tried.verdict.bound,
        inside=tried.verdict.inside,
    )
