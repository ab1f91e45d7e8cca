"""Layers that float kernels are faster for than integer ones, what is rounded and laid out around them included."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import onnx_ir as ir

from quant_core.allocation.candidates import Candidates
from quant_core.errors import name_some
from quant_core.export import Placement, Target, place
from quant_core.export.kernels.calls import DYNAMIC, calls_time
from quant_core.export.kernels.input_layout import laid_out_time
from quant_core.export.kernels.placed_run import PlacedRun
from quant_core.export.kernels.run_time import estimated_time
from quant_core.export.kernels.times import PASS, dynamic_time, float_time
from quant_core.export.placement.code_flow import CodeFlow
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.ingest import Layer, with_float_activations
from quant_core.spec import QuantizeSpec
from quant_core.spec.width import KERNEL_BITS

_NAMED = 3
_AT_MOST = 3 * PASS
"""What an element at a layer can take less in float: it is not rounded, and not made a float number of again, and what
is computed with it may be computed inside a convolution."""
_CALLS_AT_MOST = DYNAMIC
"""What a product can take less in calls of kernels, with what is computed with it."""
_SMALL = 1.1e7
"""Products in float, 220 microseconds, that a file takes at most for calls of kernels to count: of others they are a
small part, and estimated no better than the rest."""
_LEAST, _LEAST_ALONE = 1e6, 2.5e5
"""Products in float that must be gained, some 20 microseconds; 5 where none leave integers but products that are
rounded as the model runs, whose calls are counted."""
_WORTH = 1.1
"""How many times as long the file must take without: whole files are estimated to some 20 %."""
_TIE = 1.02
"""How many times as long the file may take with all layers in float, where some are, for nothing is rounded then."""
_TRIALS = 64
"""Groups of layers that are tried one after another; of more, neighbours are tried together, so that the time of a
search grows with the layers and not with their square."""
_DOUBT = 0.1
"""Share of what a layer and passes over its activations take that must be gained, for times are estimates."""


def may_leave_integers(spec: QuantizeSpec, target: Target) -> bool:
    """Tell whether single layers may run in float although nobody asked for it.

    Args:
        spec: The request.
        target: The runtime.

    Returns:
        True where all activations have 8 bits and nothing but bytes and accuracy is limited.
    """
    budget = spec.budget
    return (
        spec.float_islands != 0
        and spec.activation_bits == KERNEL_BITS
        and target.name == ORT_CPU.name
        and (budget.bops, budget.peak_memory, budget.latency) == (None, None, None)
    )


@dataclass(frozen=True)
class FloatForSpeed:
    """Layers that run in float because that is faster.

    Attributes:
        layers: Their names, in graph order.
        gain: How many times as long the file would take with them in integers, by estimate.
    """

    layers: tuple[str, ...] = ()
    gain: float = 1.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        if not self.layers:
            return ()
        named = name_some(self.layers, _NAMED)
        counted = f"{len(self.layers)} layers run" if len(self.layers) > 1 else "1 layer runs"
        note = (
            f"{counted} in float on packed weights ({named}): in integers, with what is rounded around them, the file "
            f"would take an estimated {self.gain:.2f} times as long; float_islands 0 keeps every layer in integers."
        )
        return (note,)


def faster_in_float(
    model: ir.Model,
    layers: Sequence[Layer],
    candidates: Mapping[str, Candidates],
    spec: QuantizeSpec,
    target: Target,
    elements: Mapping[str, float],
) -> FloatForSpeed:
    """Find the layers that make the file faster in float.

    Times are estimates (`estimated_time`, of small nets `calls_time` too), of the same model the same everywhere.
    Layers that hand each other codes leave integers together, as they share what is rounded at their borders: first one
    such region after another starting from all in integers, then back from all in float, and the faster of the two
    ends. Products whose input is rounded as the model runs are tried alone. Of regions that stay, single layers whose
    float kernel is faster than their integer one are tried. Neighbours are tried together where there are many. A gain
    of less than a tenth is left alone. Where the file takes as long with all layers in float as with those that were
    found, or no longer than with none where none were, all run so: it is as fast, and rounds no activations.

    Args:
        model: The normalised model.
        layers: Its layers, with what they read, multiply and write.
        candidates: Layer name -> bits it may be given.
        spec: The request.
        target: The runtime.
        elements: Tensor name -> elements of one sample.

    Returns:
        The layers; none that rules give activation bits.
    """
    return _Search(model, layers, candidates, spec, target, elements).result()


@dataclass(eq=False)
class _Search:
    model: ir.Model
    layers: Sequence[Layer]
    candidates: Mapping[str, Candidates]
    spec: QuantizeSpec
    target: Target
    elements: Mapping[str, float]
    known: dict[frozenset[str], float] = field(default_factory=dict)

    def result(self) -> FloatForSpeed:
        dynamic = self._free("dynamic")
        alone = frozenset[str]().union(*filter(self._gains, _grouped(self._tried_alone(dynamic))))
        regions = _grouped([region for region in self._regions() if self._may_gain(region)])
        whole = alone.union(*regions)
        chosen = min(self._added(alone, regions), self._taken(whole, regions), key=self.cost)
        chosen = self._added(chosen, _grouped([{name} for name in self._slow_alone() if name not in chosen]))
        before, after = self._time(frozenset()), self._time(chosen)
        products = {x.name for x in dynamic}
        everything = frozenset(x.name for x in (*dynamic, *self._free("static")))
        longer = self._time(everything)
        least = _LEAST_ALONE if chosen <= products else _LEAST
        if before - after < least or before < _WORTH * after:
            # Of several rows products take less in integers than this, the time of one.
            chosen, after, bearable = frozenset(), before, 0.0 if everything <= products else before
        else:
            bearable = _TIE * after
        if longer <= bearable:
            chosen, after = everything, longer
        return FloatForSpeed(tuple(x.name for x in self.layers if x.name in chosen), before / after)

    def cost(self, in_float: frozenset[str]) -> float:
        """The time with layers in float, and a doubt for each of them."""
        if in_float not in self.known:
            doubts = (self._doubt(layer) for layer in self.layers if layer.name in in_float)
            self.known[in_float] = self._time(in_float) + sum(doubts)
        return self.known[in_float]

    def _time(self, in_float: frozenset[str]) -> float:
        run = self._run(self._placed(in_float))
        return estimated_time(run) + (calls_time(run) if self._is_small else 0.0)

    def _run(self, placement: Placement) -> PlacedRun:
        return PlacedRun(self.model, self.layers, placement, self.elements)

    def _placed(self, in_float: Collection[str]) -> Placement:
        bits = {name: min(choice.bits) for name, choice in self.candidates.items()}
        layers = with_float_activations(self.layers, in_float)
        return place(self.model, layers, bits, KERNEL_BITS, self.target, self.spec)

    @cached_property
    def _is_small(self) -> bool:
        return estimated_time(self._run(self._integer)) < _SMALL

    @cached_property
    def _integer(self) -> Placement:
        return self._placed(())

    def _free(self, form: str) -> list[Layer]:
        """Layers that run so if nothing is changed, and may be."""
        forms = self._integer.forms
        return [layer for layer in self.layers if forms[layer.name] == form and layer.activation_bits is None]

    def _added(self, chosen: frozenset[str], groups: Iterable[Collection[str]]) -> frozenset[str]:
        for group in groups:
            chosen = min(chosen, chosen.union(group), key=self.cost)
        return chosen

    def _taken(self, chosen: frozenset[str], groups: Iterable[Collection[str]]) -> frozenset[str]:
        for group in groups:
            chosen = min(chosen, chosen.difference(group), key=self.cost)
        return chosen

    def _tried_alone(self, dynamic: Sequence[Layer]) -> list[set[str]]:
        """Products whose input is rounded as the model runs, without those that no call makes up for."""
        return [{x.name} for x in dynamic if float_time(x, near=True) < dynamic_time(x) + _CALLS_AT_MOST]

    def _gains(self, group: Collection[str]) -> bool:
        return self.cost(frozenset(group)) < self.cost(frozenset())

    def _slow_alone(self) -> list[str]:
        """Layers whose float kernel is faster even if what it reads and writes is rounded for others."""
        static = self._free("static")
        return [
            layer.name
            for layer in static
            if float_time(layer) + self._doubt(layer) < self._integer_time(layer)
        ]

    def _may_gain(self, region: Collection[str]) -> bool:
        layers = [layer for layer in self.layers if layer.name in region]
        saved = sum(_AT_MOST * (layer.input_elements + layer.output_elements) for layer in layers)
        in_float = sum(float_time(layer, near=True) + self._doubt(layer) for layer in layers)
        return in_float < sum(map(self._integer_time, layers)) + saved

    def _integer_time(self, layer: Layer) -> float:
        return laid_out_time(layer, self.model)

    def _doubt(self, layer: Layer) -> float:
        passes = PASS * (layer.input_elements + layer.output_elements)
        return _DOUBT * (self._integer_time(layer) + passes)

    def _regions(self) -> list[set[str]]:
        """Layers that hand each other codes, or read the same."""
        flow, parents = CodeFlow(self.layers, self._integer), dict[str, str]()

        def root(name: str) -> str:
            while parents.setdefault(name, name) != name:
                name = parents[name]
            return name

        for node in self.model.graph:
            if flow.runs_in_float(node):
                continue
            values = [value for value in (*node.inputs, *node.outputs) if value is not None]
            names = [str(value.name) for value in values if value.const_value is None]
            for name in names[1:]:
                parents[root(name)] = root(names[0])
        found: dict[str, set[str]] = {}
        for layer in self._free("static"):
            found.setdefault(root(layer.outputs[0]), set()).add(layer.name)
        return list(found.values())


def _grouped(groups: Sequence[set[str]]) -> list[set[str]]:
    together = math.ceil(len(groups) / _TRIALS) or 1
    return [set[str]().union(*groups[start : start + together]) for start in range(0, len(groups), together)]
