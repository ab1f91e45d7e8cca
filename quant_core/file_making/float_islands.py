"""Float islands: the few layers that lose most by 8-bit activations run in float, where that takes little time."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np
import onnx_ir as ir
import torch

from quant_core.calibration import Samples
from quant_core.export import Placement, place
from quant_core.export.kernels.run_time import estimated_time
from quant_core.file_making.islands import Islands
from quant_core.ingest import Layer, with_float_activations
from quant_core.preparation import Prepared
from quant_core.quantizers import Simulation
from quant_core.quantizers.simulation.network import dynamic_tap
from quant_core.sensitivity import Batch, Objective
from quant_core.sensitivity.batches import tensors
from quant_core.sensitivity.float_run import FloatRun, float_runs
from quant_core.spec import QuantizeSpec
from quant_core.spec.progress import Tell
from quant_core.spec.width import KERNEL_BITS

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
_TENSORS = 12
"""Tensors looked at in each round, those that cost most."""
_MACS, _FEWEST, _MOST = 3e9, 2, 8


def find_islands(
    job: Prepared,
    spec: QuantizeSpec,
    layers: Sequence[Layer],
    bits: Mapping[str, int],
    placement: Placement,
    simulation: Simulation,
    objective: Objective,
    samples: Samples,
    weights_lose: float,
    tell: Tell,
    reach: float | None = None,
) -> Islands:
    """Choose the layers that are better kept in float.

    Everything is measured with the weights in float, on two to eight samples. If all rounded activations together lose
    little, or little beside the weights, that is the end of it: two runs. Else every rounded tensor is rounded alone,
    and one tensor after another is left in float, with every layer whose kernel asks for it: the one of most loss for
    its time first, within `spec.float_islands` of the file's time. The islands are then measured together, and taken
    where the loss of weights and activations falls by a fifth. Where the request leaves the bound open it grows from
    0.15 for as long as what is measured ruins the answer: a fast file that answers wrongly is of no use. Where an
    accuracy is asked for that the file misses without, `reach` is spent however little the activations lose.

    Times are estimates of the whole file, with what else falls back to float (`estimated_time`).

    Args:
        job: The prepared job.
        spec: The request.
        layers: The layers, with the activation bits that a plan gives them.
        bits: Layer name -> bits of its weight.
        placement: How they run.
        simulation: The network with that rounding and float weights.
        objective: The loss.
        samples: What to measure on.
        weights_lose: Loss increase of the rounded weights.
        tell: Called with the fraction done and a message.
        reach: Share of the file's time to spend; infinite for every layer in float. None where only what is worth it
            may be spent.

    Returns:
        The islands; none where they are not worth it.
    """
    hooks = simulation.rounding
    if not hooks:
        return Islands()
    runs = tuple(float_runs(simulation.program, (), objective, _few(job, samples)))
    tell(0.0, f"rounded activations of {sum(run.batch.size for run in runs)} samples")
    before = _loss(runs, hooks)
    harmless = _harmless(objective, runs)
    if reach is None and (before < harmless or not _pays(weights_lose, before, 0.0)):
        return Islands(before=before, after=before, harmless=harmless)
    scores = {}
    for number, tensor in enumerate(hooks):
        scores[tensor] = fmean(_alone(run, tensor, hooks[tensor]) for run in runs)
        tell((number + 1) / len(hooks), f"{number + 1} of {len(hooks)} tensors rounded alone")
    elements = {name: value.numel() / runs[0].batch.size for name, value in tensors(runs[0].values).items()}
    search = _Search(job, spec, layers, bits, placement, scores, elements)
    found = Islands(before=before, after=before, harmless=harmless)
    given = spec.float_islands if reach is None else reach
    bounds = _BOUNDS if given is None else (given,)
    for bound in bounds:
        if bound > bounds[0] and found.after <= _RUINOUS * harmless:
            break
        chosen = search.everything() if bound == math.inf else search.grow(bound)
        if not chosen:
            continue
        placed = search.placed(chosen)
        kept = search.rounded(chosen, placed)
        after = _loss(runs, {name: hook for name, hook in hooks.items() if name in kept})
        if _pays(weights_lose, found.after, after) if reach is None else after < found.after:
            found = Islands(chosen, before, after, max(0.0, search.more_time(placed)), harmless)
    return found


def _few(job: Prepared, samples: Samples) -> tuple[Batch, ...]:
    """As many samples as a test of every job may take, in one batch where the graph takes any number."""
    macs = sum(layer.macs for layer in job.layers)
    unit = samples.batch or 1
    wanted = min(max(int(_MACS / max(1, macs)), _FEWEST), _MOST, samples.count)
    few = samples.take(np.arange(max(1, wanted // unit) * unit))
    return tuple(_batch(job, part) for part in few.batches(few.count))


def _batch(job: Prepared, samples: Samples) -> Batch:
    feeds, labels = samples.feeds(job.device, fast=True), samples.classes(job.device)
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


def _loss(runs: Sequence[FloatRun], hooks: Mapping[str, Callable[[torch.Tensor], torch.Tensor]]) -> float:
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


@dataclass(eq=False)
class _Search:
    """Adds one island after another."""

    job: Prepared
    spec: QuantizeSpec
    layers: Sequence[Layer]
    bits: Mapping[str, int]
    placement: Placement
    scores: Mapping[str, float]
    elements: Mapping[str, float]

    def grow(self, most: float) -> dict[str, float]:
        """Layer name -> share of the loss that went when it joined."""
        askers = self._askers()
        total = sum(max(0.0, score) for score in self.scores.values())
        chosen: dict[str, float] = {}
        left, spent = set(self.scores), 0.0
        while total > 0:
            tried = []
            for tensor in sorted(left, key=lambda name: (-self.scores[name], name))[:_TENSORS]:
                joined = [name for name in askers.get(tensor, ()) if name not in chosen]
                if not joined:
                    continue
                placed = self.placed([*chosen, *joined])
                time = self.more_time(placed)
                if time > most:
                    continue
                kept = self.rounded([*chosen, *joined], placed)
                gain = math.fsum(self.scores[name] for name in left - kept) / total
                if gain >= _NEXT_TO_NOTHING:
                    # What takes next to no time is judged by what it gives.
                    tried.append((gain / (0.01 + max(0.0, time - spent)), gain, time, joined, kept))
            if not tried:
                break
            _, gain, spent, joined, left = max(tried, key=lambda found: found[:2])
            chosen |= dict.fromkeys(joined, gain)
        return {layer.name: chosen[layer.name] for layer in self.layers if layer.name in chosen}

    def everything(self) -> dict[str, float]:
        """Layer name -> share of the loss of what it reads and writes, for every layer that a request leaves free."""
        total = sum(max(0.0, score) for score in self.scores.values())
        lost: dict[str, float] = {}
        for tensor, names in self._askers().items():
            for name in names:
                lost[name] = lost.get(name, 0.0) + max(0.0, self.scores.get(tensor, 0.0))
        return {each.name: lost[each.name] / (total or 1.0) for each in self.layers if each.name in lost}

    def placed(self, chosen: Collection[str]) -> Placement:
        """How all layers run with some in float."""
        layers = with_float_activations(self.layers, chosen)
        return place(self.job.model, layers, self.bits, KERNEL_BITS, self.job.target, self.spec)

    def rounded(self, chosen: Collection[str], placed: Placement) -> set[str]:
        """Tensors that are still rounded with some layers in float."""
        taken = {tap for tap, readers in self.taps.items() if readers <= set(chosen)}
        points, before = placed.points, self.placement.points
        return {name for name in self.scores if name in points or (name not in before and name not in taken)}

    def more_time(self, placed: Placement) -> float:
        """Share of the file's estimated time that layers in float add, with what falls back beside them."""
        return self._time(placed) / self.whole - 1

    @cached_property
    def whole(self) -> float:
        """Estimated time of the file without islands."""
        return self._time(self.placement)

    def _time(self, placement: Placement) -> float:
        return estimated_time(self.job.model, self.layers, placement, self.elements)

    @cached_property
    def taps(self) -> Mapping[str, set[str]]:
        """What is rounded as it runs -> the layers that read it."""
        found: dict[str, set[str]] = {}
        for layer in self.layers:
            if self.placement.forms[layer.name] == "dynamic":
                for name in layer.inputs:
                    found.setdefault(dynamic_tap(name), set()).add(layer.name)
        return found

    def _askers(self) -> dict[str, list[str]]:
        """Tensor -> layers whose kernels read or write it as codes, those that a request leaves free."""
        nodes = {str(node.name): node for node in self.job.model.graph}
        found: dict[str, list[str]] = {}
        for layer in self.layers:
            form = self.placement.forms[layer.name]
            if layer.activation_bits is not None or form not in {"static", "dynamic"}:
                continue
            if form == "dynamic":
                asked = [dynamic_tap(name) for name in layer.inputs]
            else:
                asked = [self.placement.aliases.get(name, name) for name in layer.inputs]
                asked += [name for use in layer.uses for name in _written(nodes[use.node], self.placement)]
            for tensor in dict.fromkeys(asked):
                found.setdefault(tensor, []).append(layer.name)
        return found


def _written(node: ir.Node, placement: Placement) -> Iterator[str]:
    """What an integer kernel writes: its output, behind the activation functions that its grid makes superfluous."""
    value = node.outputs[0]
    while value.name not in placement.points:
        after = next((reader for reader, _ in value.uses() if str(reader.name) in placement.absorbed), None)
        if after is None:
            return
        value = after.outputs[0]
    yield str(value.name)
