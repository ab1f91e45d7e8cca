"""Float islands: the few layers that lose most by 8-bit activations run in float, where that takes little time."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import fmean

import torch

from quant_core.calibration import Samples
from quant_core.file_making.choice import Choice, simulate
from quant_core.file_making.island_search import IslandSearch, Step
from quant_core.file_making.islands import Islands
from quant_core.ingest.macs import affordable_samples
from quant_core.preparation import Prepared
from quant_core.preparation.open_widths import layers_at
from quant_core.sensitivity import Batch, Objective
from quant_core.sensitivity.float_run import FloatRun, float_runs
from quant_core.spec import QuantizeSpec
from quant_core.spec.progress import Tell

_HARMLESS = 0.01
"""Divergence in nats, or share of an output's energy (20 dB), below which rounded activations are left alone."""
_BOUNDS = (0.15, 0.3, 0.6, 1.0)
"""Shares of the file's time, one after another while the answer is ruined."""
_RUINOUS = 5.0
"""How many times the harmless loss ruins the answer: 0.05 nats, 13 dB."""
_LEAST_GAIN = 1.25
"""How many times smaller the loss of weights and activations together must get: by 1 dB."""
_NEXT_TO_NOTHING = 0.02
"""Share of the loss of all rounded activations that a further island must take away."""
_CHEAP, _FREE = 0.03, 0.005
"""Shares of the file's time that islands may take where little is lost, and that nobody notices."""
_LEAST_DECIBELS, _DECIBELS = 0.1, 100.0
"""By how much a further one of these lowers the loss at least, and for all of the file's time beyond that."""
_FINE = 0.1
"""Share of the harmless loss (30 dB) above which outputs that are values are worth more time."""
_VALUES_TIME, _VALUES_DECIBELS = 0.1, 60.0
"""The same for these: the share of time that islands may take, and the decibels that all of it would have to bring."""
_MACS, _FEWEST, _MOST, _MANY = 3e9, 2, 8, 16
_TINY = 1e-30

Hooks = Mapping[str, Callable[[torch.Tensor], torch.Tensor]]


def find_islands(
    job: Prepared,
    spec: QuantizeSpec,
    choice: Choice,
    objective: Objective,
    samples: Samples,
    weights_lose: float,
    tell: Tell,
    reach: float | None = None,
) -> Islands:
    """Choose the layers that are better kept in float.

    Everything is measured with the weights in float, on two to eight samples. If all rounded activations together lose
    little, or little beside the weights, only islands are looked for that take next to no time: 3 % of the file's, a
    decibel of the loss for each of these but for the first half; 10 %, 0.6 dB for each, where outputs are values that
    come to less than 30 dB. Else every rounded tensor is rounded alone, and one tensor after another is left in float,
    with every layer whose kernel asks for it: the one of most loss for its time first, within `spec.float_islands` of
    the file's time. The islands are then measured together, and taken where the loss of weights and activations falls
    by a fifth. Where the request leaves the bound open it grows from 0.15 for as long as what is measured ruins the
    answer: a fast file that answers wrongly is of no use. Where an accuracy is asked for that the file misses without,
    `reach` is spent however little the activations lose.

    Times are estimates of the whole file, with what else falls back to float (`estimated_time`), alone or in a
    batch (`far_time`), whichever adds more.

    Args:
        job: The prepared job.
        spec: The request.
        choice: What was decided, without islands.
        objective: The loss.
        samples: What to measure on.
        weights_lose: Loss increase of the rounded weights.
        tell: Called with the fraction done and a message.
        reach: Share of the file's time to spend; infinite for every layer in float. None where only what is worth it
            may be spent.

    Returns:
        The islands; none where they are not worth it.
    """
    simulation = simulate(job.graph, job, choice)
    program, hooks = simulation.program, simulation.rounding
    if not hooks:
        return Islands()
    runs = tuple(float_runs(program, (), objective, _few(job, samples)))
    tell(0.0, f"rounded activations of {sum(run.batch.size for run in runs)} samples")
    before = _loss(runs, hooks)
    harmless = _harmless(objective, runs)
    elements = {name: value.numel() / runs[0].batch.size for name, value in runs[0].values.items()}
    plan, layers = choice.plan, layers_at(job.layers, choice.plan.widths)
    search = IslandSearch(job, spec, layers, plan.bits, choice.placement, tuple(hooks), elements)
    found = Islands(before=before, after=before, harmless=harmless)
    if reach is None and (before < harmless or not _pays(weights_lose, before, 0.0)):
        if spec.effort == "fast" or _decibels(weights_lose, before, 0.0) < _LEAST_DECIBELS:
            return found
        coarse = before >= _FINE * harmless and all(term.kind == "squared_error" for term in objective.terms)
        most, price = (_VALUES_TIME, _VALUES_DECIBELS) if coarse else (_CHEAP, _DECIBELS)
        most = most if spec.float_islands is None else min(most, spec.float_islands)
        if looked_at := search.within(most):
            runs = tuple(float_runs(program, (), objective, _few(job, samples, _MANY)))
            search.scores = _scores(runs, hooks, looked_at, tell)
            found = _cheap(search, most, price, runs, hooks, weights_lose) or found
        return found
    search.scores = _scores(runs, hooks, hooks, tell)
    search.total = sum(max(0.0, score) for score in search.scores.values())
    given = spec.float_islands if reach is None else reach
    bounds = _BOUNDS if given is None else (given,)
    for bound in bounds:
        if bound > bounds[0] and found.after <= _RUINOUS * harmless:
            break
        chosen = search.everything() if bound == math.inf else search.grow(bound, _takes_something)
        if not chosen:
            continue
        placed = search.placed(chosen)
        kept = search.rounded(chosen, placed)
        after = _loss(runs, {name: hook for name, hook in hooks.items() if name in kept})
        if _pays(weights_lose, found.after, after) if reach is None else after < found.after:
            found = Islands(chosen, before, after, max(0.0, search.more_time(placed)), harmless)
    return found


def _takes_something(step: Step) -> bool:
    return step.gain >= _NEXT_TO_NOTHING


def _cheap(
    search: IslandSearch, most: float, price: float, runs: Sequence[FloatRun], hooks: Hooks, weights: float
) -> Islands | None:
    """Islands that take next to no time, as the product behind a mean over all places; None where they do not pay."""
    before = _loss(runs, hooks)
    search.total = max(before, math.fsum(search.scores.values()))

    def pays(step: Step) -> bool:
        left = search.total * (1 - step.gone)
        asked = price * (step.time - max(step.spent, _FREE))
        return _decibels(weights, left, left - search.total * step.gain) >= max(_LEAST_DECIBELS, asked)

    chosen = search.grow(most, pays)
    if not chosen:
        return None
    placed = search.placed(chosen)
    # Roundings err independently of each other: few samples tell more of each alone than of the difference of two sums.
    kept = search.rounded(chosen, placed)
    after = before * (
        1 - math.fsum(score for name, score in search.scores.items() if name not in kept) / search.total
    )
    time = max(0.0, search.more_time(placed))
    return Islands(chosen, before, after, time, _harmless(runs[0].objective, runs))


def _decibels(weights: float, before: float, after: float) -> float:
    """By how much the loss of weights and activations together falls."""
    return 10 * math.log10(max(weights + before, _TINY) / max(weights + after, _TINY))


def _scores(runs: Sequence[FloatRun], hooks: Hooks, rounded: Collection[str], tell: Tell) -> dict[str, float]:
    """Tensor -> what the network loses where it is rounded alone."""
    scores = {}
    for tensor in (name for name in hooks if name in rounded):
        scores[tensor] = fmean(_alone(run, tensor, hooks[tensor]) for run in runs)
        tell(len(scores) / len(rounded), f"{len(scores)} of {len(rounded)} tensors rounded alone")
    return scores


def _few(job: Prepared, samples: Samples, most: int = _MOST) -> tuple[Batch, ...]:
    """As many samples as a test of every job may take, in one batch where the graph takes any number."""
    few = samples.first(min(max(affordable_samples(job.layers, _MACS), _FEWEST), most))
    return tuple(_batch(job, part) for part in few.batches(few.count))


def _batch(job: Prepared, samples: Samples) -> Batch:
    feeds, labels = samples.feeds(job.program.device, fast=True), samples.classes(job.program.device)
    return Batch(feeds, labels, samples.count)


def _harmless(objective: Objective, runs: Sequence[FloatRun]) -> float:
    """The loss increase that is left alone."""
    energies = [
        fmean(0.5 * float(run.reference[place].square().sum(dim=(1, 2)).mean()) for run in runs)
        if term.kind == "squared_error"
        else 1.0
        for place, term in enumerate(objective.terms)
    ]
    return _HARMLESS * sum(t.weight * energy for t, energy in zip(objective.terms, energies, strict=True))


def _pays(weights: float, before: float, after: float) -> bool:
    return weights + before >= _LEAST_GAIN * (weights + after) and before > after


def _increase(run: FloatRun, values: Mapping[str, torch.Tensor]) -> float:
    rows = run.objective.rows(values, run.batch.size)
    return float((run.per_sample(rows) - run.before).double().mean())


def _loss(runs: Sequence[FloatRun], hooks: Hooks) -> float:
    found = []
    for run in runs:
        with torch.no_grad():
            values = run.program.evaluate(run.batch.feeds, outputs=run.objective.tensors, replace=hooks)
            found.append(_increase(run, values))
    return fmean(found)


def _alone(run: FloatRun, tensor: str, rounding: Callable[[torch.Tensor], torch.Tensor]) -> float:
    behind = run.program.downstream(tensor)
    feeds = {name: value for name, value in run.values.items() if name not in behind}
    feeds[tensor] = rounding(run.values[tensor])
    with torch.no_grad():
        return _increase(run, run.program.evaluate(feeds, outputs=run.objective.tensors))
