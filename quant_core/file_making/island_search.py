"""Islands one after another: which layers in float take how much of the loss away, for how much time."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import onnx_ir as ir

from quant_core.export import Placement, place
from quant_core.export.kernels.far_memory import far_time
from quant_core.export.kernels.input_layout import laid_out_time
from quant_core.export.kernels.placed_run import PlacedRun
from quant_core.export.kernels.run_time import estimated_time
from quant_core.export.kernels.times import PASS, dynamic_time, float_time
from quant_core.ingest import Layer, with_float_activations
from quant_core.preparation import Prepared
from quant_core.quantizers.simulation.network import dynamic_tap
from quant_core.spec import QuantizeSpec
from quant_core.spec.width import KERNEL_BITS

_TENSORS = 12
"""Tensors looked at in each round, those that cost most."""
_AT_MOST = 3 * PASS
"""What an element at a layer can take less in float: it is not rounded, and not made a float number of again, and what
is computed with it may be computed inside a convolution."""


class Step(NamedTuple):
    """One island more.

    Attributes:
        gone: Share of the loss that those before it took away.
        gain: Share that it takes away.
        spent: Share of the file's time that those before it add.
        time: Share that all add with it.
    """

    gone: float
    gain: float
    spent: float
    time: float


@dataclass(eq=False)
class IslandSearch:
    """Adds one island after another.

    Attributes:
        job: The prepared job.
        spec: The request.
        layers: The layers, with the activation bits that a plan gives them.
        bits: Layer name -> bits of its weight.
        placement: How they run without islands.
        tensors: What is rounded then.
        elements: Tensor name -> elements of one sample.
        scores: Tensor -> what the network loses where it is rounded alone, of those that are looked at.
        total: What it loses by all rounded activations.
    """

    job: Prepared
    spec: QuantizeSpec
    layers: Sequence[Layer]
    bits: Mapping[str, int]
    placement: Placement
    tensors: Collection[str]
    elements: Mapping[str, float]
    scores: Mapping[str, float] = field(default_factory=dict)
    total: float = 0.0

    def grow(self, most: float, pays: Callable[[Step], bool]) -> dict[str, float]:
        """Add islands, the one of most loss for its time first.

        Args:
            most: Share of the file's time that they may add.
            pays: Tells which steps may be taken.

        Returns:
            Layer name -> share of the loss that went when it joined.
        """
        askers, total = self._askers(), self.total
        chosen: dict[str, float] = {}
        left, spent, gone = set(self.scores), 0.0, 0.0
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
                kept = left & self.rounded([*chosen, *joined], placed)
                gain = math.fsum(self.scores[name] for name in left - kept) / total
                if pays(Step(gone, gain, spent, time)):
                    # What takes next to no time is judged by what it gives.
                    tried.append((gain / (0.01 + max(0.0, time - spent)), gain, time, joined, kept))
            if not tried:
                break
            _, gain, spent, joined, left = max(tried, key=lambda found: found[:2])
            gone += gain
            chosen |= dict.fromkeys(joined, gain)
        return {layer.name: chosen[layer.name] for layer in self.layers if layer.name in chosen}

    def everything(self) -> dict[str, float]:
        """Layer name -> share of the loss of what it reads and writes, for every layer that a request leaves free."""
        lost: dict[str, float] = {}
        for tensor, names in self._askers().items():
            for name in names:
                lost[name] = lost.get(name, 0.0) + max(0.0, self.scores.get(tensor, 0.0))
        return {each.name: lost[each.name] / (self.total or 1.0) for each in self.layers if each.name in lost}

    def within(self, most: float) -> set[str]:
        """Tensors that one island within a share of the file's time leaves in float."""
        by_name = {layer.name: layer for layer in self.layers}
        found: set[str] = set()
        for names in dict.fromkeys(map(tuple, self._askers().values())):
            if self._least_time([by_name[name] for name in names]) > most * self._whole[0]:
                continue
            placed = self.placed(names)
            if self.more_time(placed) <= most:
                found |= set(self.tensors) - self.rounded(names, placed)
        return found

    def _least_time(self, layers: Sequence[Layer]) -> float:
        """What layers in float add at least, whatever is rounded around them."""
        saved = sum(_AT_MOST * (each.input_elements + each.output_elements) for each in layers)
        return sum(float_time(each, near=True) - self._integer_time(each) for each in layers) - saved

    def _integer_time(self, layer: Layer) -> float:
        if self.placement.forms[layer.name] == "dynamic":
            return dynamic_time(layer)
        return laid_out_time(layer, self.job.model)

    def placed(self, chosen: Collection[str]) -> Placement:
        """How all layers run with some in float."""
        layers = with_float_activations(self.layers, chosen)
        return place(self.job.model, layers, self.bits, KERNEL_BITS, self.job.target, self.spec)

    def rounded(self, chosen: Collection[str], placed: Placement) -> set[str]:
        """Tensors that are still rounded with some layers in float."""
        taken = {tap for tap, readers in self.taps.items() if readers <= set(chosen)}
        points, before = placed.points, self.placement.points
        return {name for name in self.tensors if name in points or (name not in before and name not in taken)}

    def more_time(self, placed: Placement) -> float:
        """Share of the file's estimated time that layers in float add, of one sample or in a batch."""
        (alone, far), (whole, whole_far) = self._times(placed), self._whole
        return max(alone / whole, (alone + far) / (whole + whole_far)) - 1

    @cached_property
    def _whole(self) -> tuple[float, float]:
        return self._times(self.placement)

    def _times(self, placement: Placement) -> tuple[float, float]:
        """Estimated time of a file with one sample, and what each of a batch takes more."""
        run = PlacedRun(self.job.model, self.layers, placement, self.elements)
        return estimated_time(run), far_time(run)

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
