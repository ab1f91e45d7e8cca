"""Widths that need no measuring: where two measured ones agree with the layer's own error, the finer ones follow it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.sensitivity.float_run import FloatRun, Quantized, stand_in_tensors

_AGREEMENT, _MOST_NOISE = 0.25, 0.5
"""How far the loss of widths that are not measured may be off; how far where that cannot be told from noise."""

_PLACES = 128

Weights = dict[str, torch.Tensor]

Changes = list[tuple[torch.Tensor, bool]]
"""Of each width the change of every sample's loss, float64, and whether it was measured."""


def changes_of(
    runs: Sequence[FloatRun],
    layer: Layer,
    quantized: Sequence[Quantized],
    *,
    foretell: bool,
    compared: int = 1,
) -> Changes:
    """Measure what a layer at each of its widths does to the loss of every sample of a batch.

    A divergence or squared error is of second order in what changes: it grows with the squared error e(b) of what the
    layer gives, which takes one run of the layer alone. Widths are measured from the largest error on; the second one,
    c, tells how far `m(a) e(c) / e(a)` misses its mean change m(c). What makes it miss is of higher order, `sqrt(e)` or
    more, so that c itself misses finer widths by `sqrt(e(c) / e(a))` times as much at most. Where that is below 25 %,
    or below a standard error and 50 %, finer widths are taken from c and not measured. Measured are all widths of a
    layer of fewer than 128 weights, whose errors point anywhere, and of a loss by labels, which has a first order.

    In a batch of several parts a and c are compared on the first ones. If they agree there, by less than 25 %, c alone
    is measured on the others, and a stands to c as it does on the first: how two widths compare differs less from
    sample to sample than the loss does.

    Args:
        runs: The batch with float weights, in one part or, where widths may be foretold, in several.
        layer: The layer.
        quantized: Its weight at each width.
        foretell: Whether widths may be foretold; else all are measured.
        compared: On how many parts two widths are compared.

    Returns:
        For each width the change of every sample, float64 `[samples]`, and whether it was measured.
    """
    tensors = [stand_in_tensors(runs[0].program, layer, weight) for weight in quantized]

    def measured(k: int, part: int) -> torch.Tensor:
        run = runs[part]
        with torch.no_grad():
            return (run.per_sample(run.changed(layer, tensors[k])) - run.before).double()

    errors = _own_errors(runs[-1], layer, tensors) if foretell and len(tensors) > 2 else None
    if errors is None:
        parts = range(len(runs))
        return [(torch.cat([measured(k, part) for part in parts]), True) for k in range(len(tensors))]
    return _walked(errors, measured, len(runs), compared)


def _walked(
    errors: Sequence[float], measured: Callable[[int, int], torch.Tensor], parts: int, compared: int = 1
) -> Changes:
    first, second, *finer = order = np.argsort(-np.array(errors), kind="stable").tolist()
    begun: dict[int, torch.Tensor] = {}
    found: dict[int, tuple[torch.Tensor, bool]] = {}

    def on(k: int, some: range) -> torch.Tensor:
        return torch.cat([measured(k, part) for part in some])

    if parts > compared:
        begun = {k: on(k, range(compared)) for k in (first, second)}
        ratio = errors[second] / errors[first]
        if _agree(begun[second], begun[first] * ratio, math.sqrt(ratio), noisy=False):
            rest = on(second, range(compared, parts))
            share = begun[first].sum() / begun[second].sum()
            found[first] = torch.cat([begun[first], rest * share]), True
            found[second] = torch.cat([begun[second], rest]), True
            for k in finer:
                found[k] = found[second][0] * (errors[k] / errors[second]), False
            return [found[k] for k in range(len(errors))]
    last, trusted = -1, False
    for k in order:
        ratio = errors[k] / errors[last] if last >= 0 else np.nan
        if trusted:
            found[k] = found[last][0] * ratio, False
            continue
        known = [begun[k]] if k in begun else []
        change = torch.cat([*known, *(measured(k, part) for part in range(compared if known else 0, parts))])
        found[k] = change, True
        trusted = last >= 0 and _agree(change, found[last][0] * ratio, math.sqrt(ratio))
        last = k
    return [found[k] for k in range(len(errors))]


def _agree(measured: torch.Tensor, expected: torch.Tensor, share: float, *, noisy: bool = True) -> bool:
    mean, apart = float(measured.mean()), measured - expected
    noise = float(apart.std()) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
    allowed = max(_AGREEMENT * mean, min(_MOST_NOISE * mean, noise * share) if noisy else 0.0)
    return mean > 0 and abs(float(apart.mean())) * share <= allowed


def _own_errors(run: FloatRun, layer: Layer, tensors: Sequence[Weights]) -> list[float] | None:
    """Squared error of what the layer gives at each width; None where that tells nothing or there is no one place."""
    if len(layer.uses) != 1 or any(term.kind == "cross_entropy" for term in run.objective.terms):
        return None
    place = _place(run.program, {name for weights in tensors for name in weights})
    if place is None:
        return None
    behind, expected = run.after[layer.weight], run.values[place]
    feeds = {name: value for name, value in run.values.items() if name not in behind}
    few = _few_samples(run, layer, place)
    if few < run.batch.size:
        read = layer.uses[0].input
        feeds, expected = {read: run.values[read][:few]}, expected[:few]
    errors = []
    for weights in tensors:
        with torch.no_grad():
            value = run.program.evaluate(feeds, outputs=[place], weights=weights)[place]
        errors.append(float((value - expected).square_().sum(dtype=torch.float64)))
    return errors if all(np.isfinite(errors)) and min(errors) > 0 else None


def _few_samples(run: FloatRun, layer: Layer, place: str) -> int:
    """Samples that tell how the errors of widths compare: of a convolution's many places a hundred do."""
    (use,) = layer.uses
    shape = run.values[place].shape
    if (
        layer.op != "Conv"
        or place != use.output
        or {len(run.values[use.input]), shape[0]} != {run.batch.size}
    ):
        return run.batch.size
    return min(run.batch.size, math.ceil(_PLACES / max(1, math.prod(shape[2:]))))


def _place(program: Program, names: set[str]) -> str | None:
    """The first tensor that depends on all of these initializers: with a corrected bias, the one it is added to."""
    common = frozenset.intersection(*(program.downstream(name) for name in names))
    return next((name for name in program.order if name in common), None)
