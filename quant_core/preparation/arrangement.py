"""A graph as a file of it runs: what operators in float read kept apart, its layers, and what these may be given."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import onnx_ir as ir

from quant_core.allocation.candidates import Candidates, candidate_bits, with_activation_bits
from quant_core.allocation.file_costs import FileCosts, smallest_kept, smallest_reachable
from quant_core.calibration import Samples
from quant_core.executor import Program
from quant_core.export import Target, place, target_of, within_target
from quant_core.export.placement.float_readers import part_readers
from quant_core.ingest import Layer, Source, find_layers, normalise, with_float_activations, with_shapes
from quant_core.ingest.slow_operators import spell_out_slow
from quant_core.preparation.float_speed import FloatForSpeed, faster_in_float, may_leave_integers
from quant_core.preparation.open_widths import file_costs, open_widths
from quant_core.preparation.refusals import refuse_budget, refuse_no_layer
from quant_core.spec import QuantizeSpec
from quant_core.spec.width import stored_of


@dataclass(frozen=True, eq=False)
class Arrangement:
    """The layers of a graph and what each may be given.

    Attributes:
        source: The float file.
        whole: Its normalised graph.
        model: The same, with what operators in float read kept apart from what kernels read as codes.
        layers: Layers of `model`, with activation bits that rules give them.
        candidates: Layer name -> bits it may be given.
        costs: File costs of any plan.
        spec: The request.
    """

    source: Source
    whole: ir.Model
    model: ir.Model
    layers: tuple[Layer, ...]
    candidates: Mapping[str, Candidates]
    costs: FileCosts
    spec: QuantizeSpec

    @property
    def target(self) -> Target:
        """The runtime the file is made for."""
        return target_of(self.spec)

    @property
    def budget(self) -> int | None:
        """The largest allowed file, in bytes; None if the size is left free."""
        return self.spec.budget.limit_bytes(self.source.file_bytes)

    @cached_property
    def widths(self) -> Mapping[str, Candidates]:
        """Layer name -> widths it may be given."""
        return open_widths(self.candidates, self.layers, self.model, self.spec, self.target)

    @property
    def stored(self) -> Mapping[str, tuple[int, ...]]:
        """Layer name -> its widths without activations: every way its weight is to be rounded."""
        return {name: tuple(sorted(set(map(stored_of, each.bits)))) for name, each in self.widths.items()}

    @property
    def activations(self) -> tuple[str, ...]:
        """Tensors that layers read and write."""
        return tuple(dict.fromkeys(name for each in self.layers for name in (*each.inputs, *each.outputs)))

    @property
    def leaves_integers(self) -> bool:
        """Whether single layers may run in float although nobody asked for it."""
        return may_leave_integers(self.spec, self.target)

    @property
    def is_hopeless(self) -> bool:
        """Whether the codes alone, without steps, names and all else, exceed the budget."""
        codes = sum(layer.parameters * min(self.candidates[layer.name].bits) for layer in self.layers) / 8
        return self.budget is not None and self.budget < codes

    def check_budget(self) -> None:
        """Refuse a budget that no plan meets.

        Raises:
            InfeasibleBudgetError: If even the smallest file is larger.
        """
        if self.budget is not None and smallest_reachable(self.widths, self.costs) > self.budget:
            smallest = smallest_kept(self.widths, self.costs)
            refuse_budget(
                self.budget, smallest, self.source.file_bytes, self.model, self.layers, self.candidates
            )

    def faster_in_float(self, program: Program, samples: Samples) -> FloatForSpeed:
        """Find layers that are faster in float, for tensors of the sizes that one sample gives.

        Args:
            program: The graph, compiled.
            samples: The user's samples; the first is run.

        Returns:
            The layers; none where all are to stay in integers.
        """
        if not self.leaves_integers:
            return FloatForSpeed()
        first = samples.first(1)
        values = program.every_tensor(first.feeds(program.device), self.activations)
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        elements = {name: math.prod(shape) / first.count for name, shape in shapes.items()}
        shaped = with_shapes(self.layers, self.model, shapes, first.count)
        return faster_in_float(self.model, shaped, self.candidates, self.spec, self.target, elements)

    def with_float(self, names: Collection[str]) -> Arrangement:
        """Keep the activations of some layers in float.

        Args:
            names: The layers.

        Returns:
            The graph arranged anew.
        """
        return _arranged(self.source, self.whole, self.layers, self.candidates, self.spec, names)

    def with_sizes(self, shapes: Mapping[str, tuple[int, ...]], samples: int) -> Arrangement:
        """Note what layers read, multiply and write.

        Args:
            shapes: Tensor -> its shape in one run.
            samples: Samples of that run.

        Returns:
            The same graph, with layers and costs that know it.
        """
        layers = with_shapes(self.layers, self.model, shapes, samples)
        costs = self.costs
        if any(layer.group > 1 < layer.shape[1] for layer in layers):  # their form depends on sizes of images
            costs = file_costs(self.model, layers, self.candidates, self.spec, self.target)
        return replace(self, layers=layers, costs=costs)


def arrange(source: Source, spec: QuantizeSpec) -> Arrangement:
    """Normalise a model and find its layers.

    Args:
        source: The float file.
        spec: The request.

    Returns:
        The graph, whose layers do not know yet how much they read and write.

    Raises:
        ModelError: If there is no layer, or an operator that is not known.
        SpecError: If the request names a layer that is not there, or asks for what the runtime cannot run.
    """
    model, target = normalise(source.model), target_of(spec)
    if target.runs_here:
        model = spell_out_slow(model)
    layers = find_layers(model)
    if not layers:
        refuse_no_layer(source, model)
    candidates = candidate_bits(layers, spec)
    layers = with_activation_bits(layers, spec)
    return _arranged(source, model, layers, within_target(candidates, layers, model, spec, target), spec)


def _arranged(
    source: Source,
    whole: ir.Model,
    layers: Sequence[Layer],
    candidates: Mapping[str, Candidates],
    spec: QuantizeSpec,
    in_float: Collection[str] = (),
) -> Arrangement:
    model, target = whole, target_of(spec)
    if target.rounding != "operands":  # GPUs' compilers would keep a tensor twice that is read in two ways
        bits = {name: min(choice.bits) for name, choice in candidates.items()}
        placed = with_float_activations(layers, in_float)
        placement = place(model, placed, bits, spec.default_activation_bits, target, spec)
        model = part_readers(model, placed, placement)
    found = with_float_activations(with_activation_bits(find_layers(model), spec), in_float)
    costs = file_costs(model, found, candidates, spec, target)
    return Arrangement(source, whole, model, found, candidates, costs, spec)
