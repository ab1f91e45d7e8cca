"""Everything that is checked and known before the first probe: the model, its layers, the samples, the sizes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
import torch

from quant_core.allocation.candidates import Candidates, candidate_bits, with_activation_bits
from quant_core.allocation.file_costs import FileCosts, smallest_kept, smallest_reachable
from quant_core.calibration import Samples, load_samples
from quant_core.calibration.padding import Padding
from quant_core.errors import ModelError, NonFiniteError, SpecError
from quant_core.executor import Program, compile_model
from quant_core.export import Target, place, target_of, within_target
from quant_core.export.placement.float_readers import part_readers
from quant_core.ingest import (
    Layer,
    Source,
    find_layers,
    normalise,
    read_model,
    with_float_activations,
    with_shapes,
)
from quant_core.ingest.declared_outputs import correct_declared
from quant_core.ingest.slow_operators import spell_out_slow
from quant_core.preparation.batching import free_samples
from quant_core.preparation.float_speed import FloatForSpeed, faster_in_float, may_leave_integers
from quant_core.preparation.independence import check_independence
from quant_core.preparation.notes import copies_note, grid_note
from quant_core.preparation.open_widths import file_costs, open_widths
from quant_core.preparation.padding import find_padding
from quant_core.preparation.reference import Reference, find_reference
from quant_core.preparation.refusals import refuse_budget, refuse_no_layer, require_floats
from quant_core.preparation.single_samples import one_by_one
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.sensitivity.batches import tensors
from quant_core.spec import QuantizeSpec
from quant_core.spec.memory_share import memory_share
from quant_core.spec.width import stored_of

_PARITY_SAMPLES = 4
"""Samples on which the executor is held against onnxruntime."""

_BATCH_BYTES = 192 << 20
"""What the activations of one batch may take."""

_LARGEST_BATCH = 64
"""Samples of a batch, however small they are."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A job that can start.

    Attributes:
        source: The float file.
        model: Its normalised graph.
        graph: What `program` was compiled from.
        program: The graph, compiled and compared with onnxruntime; where it fixes the batch at 1 and samples do not
            depend on each other, a rewritten copy that takes any number.
        layers: Its quantizable layers, with multiply-accumulates.
        samples: The user's samples; their `batch` is what `program` demands.
        batch_size: Samples per run: what the program demands, else what fits in memory.
        candidates: Layer name -> bits it may be given.
        stored: Layer name -> the same with shares of outliers: every way its weight is to be rounded.
        costs: File costs of any plan.
        budget: Largest allowed file, in bytes; None if the size is left free.
        target: The runtime the file is made for.
        reference: The float model as onnxruntime runs it.
        padding: An axis of the inputs whose end no output depends on, if the samples do not fill one.
        notes: What the user should know about how the model is read and samples are run.
    """

    source: Source
    model: ir.Model
    graph: ir.Model
    program: Program
    layers: tuple[Layer, ...]
    samples: Samples
    batch_size: int
    candidates: Mapping[str, Candidates]
    stored: Mapping[str, tuple[int, ...]]
    costs: FileCosts
    budget: int | None
    target: Target
    reference: Reference
    padding: Padding | None = None
    notes: tuple[str, ...] = ()

    @property
    def network(self) -> FloatNetwork:
        """What is to be rounded."""
        return FloatNetwork(self.program, self.model, self.layers, self.batch_size)

    def shorten(self, samples: Samples) -> Samples:
        """Leave out padding that all samples share: outputs stay the same, and so do the sensitivities.

        Args:
            samples: Samples to analyse with.

        Returns:
            The same samples, as long as the longest of them.
        """
        return replace(samples, padding=self.padding).shortened()


def prepare(model_path: Path, data_path: Path, spec: QuantizeSpec) -> Prepared:
    """Read and check everything a job needs; nothing is written.

    Args:
        model_path: The float ONNX file.
        data_path: The sample file.
        spec: The request.

    Returns:
        The job, ready to start.

    Raises:
        ModelError: If the model cannot be used, or its first axis does not count samples.
        SamplesError: If the samples do not fit it.
        SpecError: If the request contradicts itself or names what is not there.
        InfeasibleBudgetError: If no plan can meet the budget.
        NonFiniteError: If the float model itself gives NaN or infinity on these samples.
        InternalError: If the engine computes something else than onnxruntime.
    """
    device = choose_device(spec.device)
    source = read_model(model_path, spec.quantized_parts)
    model, target = normalise(source.model), target_of(spec)
    if target.runs_here:
        model = spell_out_slow(model)
    layers = find_layers(model)
    if not layers:
        refuse_no_layer(source, model, str(model_path))
    candidates = candidate_bits(layers, spec)
    layers = with_activation_bits(layers, spec)
    candidates = within_target(candidates, layers, model, spec, target)
    whole = model
    model, layers, costs = _arrange(whole, layers, candidates, spec, target)
    budget = spec.budget.limit_bytes(source.file_bytes)

    def check_budget() -> Mapping[str, Candidates]:
        widths = open_widths(candidates, layers, model, spec, target)
        if budget is not None and smallest_reachable(widths, costs) > budget:
            smallest = smallest_kept(widths, costs)
            refuse_budget(budget, smallest, source.file_bytes, model, layers, candidates)
        return widths

    leaves_integers = may_leave_integers(spec, target)
    hopeless = budget is not None and budget < _weight_bytes(layers, candidates)
    if hopeless or not leaves_integers:  # else floats may make the file smaller, which samples tell
        check_budget()
    samples = load_samples(data_path, model)
    program = compile_model(model, device=device)
    first = samples.first(samples.batch or _PARITY_SAMPLES)
    try:
        reference = find_reference(source, model, program, first)
    except ModelError as failure:
        samples = one_by_one(source, (whole, model), samples, failure)
        first, program = samples.first(1), compile_model(model, device=device)
        reference = find_reference(source, model, program, first)
    in_float = FloatForSpeed()
    if leaves_integers:
        in_float = _faster_in_float(model, program, layers, samples, candidates, spec, target)
    if in_float.layers:
        model, layers, costs = _arrange(whole, layers, candidates, spec, target, in_float.layers)
        program = compile_model(model, device=device)
        reference = find_reference(source, model, program, first)
    shapes, outputs, bytes_per_sample = _measure(program, layers, first)
    require_floats(model, outputs, str(model_path))
    corrected = correct_declared(model, {name: tuple(value.shape) for name, value in outputs.items()})
    if samples.batch is None and not source.quantized_parts:
        check_independence(program, first.inputs, outputs, str(model_path))
    affordable = min(_LARGEST_BATCH, _BATCH_BYTES // max(1, bytes_per_sample))
    affordable = max(1, int(affordable * memory_share()))
    batching = free_samples(model, program, layers, samples, affordable)
    shaped = with_shapes(layers, model, shapes, first.count)
    if any(layer.group > 1 < layer.shape[1] for layer in layers):  # their form depends on sizes of images
        costs = file_costs(model, shaped, candidates, spec, target)
    widths = check_budget()
    return Prepared(
        source=source,
        model=model,
        graph=batching.model,
        program=batching.program,
        layers=shaped,
        samples=batching.samples,
        batch_size=batching.samples.batch or affordable,
        candidates=candidates,
        stored={name: tuple(sorted(set(map(stored_of, choice.bits)))) for name, choice in widths.items()},
        costs=costs,
        budget=budget,
        target=target,
        reference=reference,
        padding=find_padding(batching.model, batching.program, batching.samples),
        notes=(
            *copies_note(samples),
            *reference.notes,
            *corrected,
            *batching.notes,
            *in_float.notes,
            *grid_note(layers, candidates, model, spec, target),
        ),
    )


def _weight_bytes(layers: Sequence[Layer], candidates: Mapping[str, Candidates]) -> float:
    """What the codes of all weights take at the fewest bits, without steps, names and all else."""
    return sum(layer.parameters * min(candidates[layer.name].bits) for layer in layers) / 8


def _faster_in_float(
    model: ir.Model,
    program: Program,
    layers: tuple[Layer, ...],
    samples: Samples,
    candidates: Mapping[str, Candidates],
    spec: QuantizeSpec,
    target: Target,
) -> FloatForSpeed:
    """Layers that are faster in float, for tensors of the sizes that one sample gives."""
    first = samples.first(1)
    feeds = first.feeds(program.device)
    with torch.no_grad():
        wanted = dict.fromkeys((*program.order, *program.outputs, *_activations(layers)))
        made = program.evaluate(feeds, outputs=[name for name in wanted if name not in feeds])
    shapes = {name: tuple(value.shape) for name, value in {**feeds, **tensors(made)}.items()}
    elements = {name: math.prod(shape) / first.count for name, shape in shapes.items()}
    shaped = with_shapes(layers, model, shapes, first.count)
    return faster_in_float(model, shaped, candidates, spec, target, elements)


def _arrange(
    whole: ir.Model,
    layers: Sequence[Layer],
    candidates: Mapping[str, Candidates],
    spec: QuantizeSpec,
    target: Target,
    in_float: Collection[str] = (),
) -> tuple[ir.Model, tuple[Layer, ...], FileCosts]:
    """The graph with what floats read kept apart, its layers and their bytes; activations of `in_float` stay float."""
    model = _with_float_readers(whole, with_float_activations(layers, in_float), candidates, spec, target)
    found = with_float_activations(with_activation_bits(find_layers(model), spec), in_float)
    return model, found, file_costs(model, found, candidates, spec, target)


def _with_float_readers(
    model: ir.Model,
    layers: Sequence[Layer],
    candidates: Mapping[str, Candidates],
    spec: QuantizeSpec,
    target: Target,
) -> ir.Model:
    """Let operators in float read tensors as they are computed, where kernels read their codes beside them."""
    if target.rounding == "operands":  # GPUs' compilers would keep such a tensor twice
        return model
    bits = {name: min(choice.bits) for name, choice in candidates.items()}
    return part_readers(model, layers, place(model, layers, bits, spec.default_activation_bits, target, spec))


def choose_device(wanted: str) -> str:
    """Turn a request's device into one that exists.

    Args:
        wanted: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        A torch device name.

    Raises:
        SpecError: If there is no such device.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted != "cpu":
        index = int(wanted.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise SpecError(
                f"device {wanted} does not exist; torch sees {torch.cuda.device_count()} CUDA devices.",
                remedy="Use cpu or auto, or install a CUDA build of torch.",
                where="device",
            )
    return wanted


def _activations(layers: tuple[Layer, ...]) -> list[str]:
    """Tensors that layers read and write."""
    return list(dict.fromkeys(name for layer in layers for name in (*layer.inputs, *layer.outputs)))


def _measure(
    program: Program, layers: tuple[Layer, ...], samples: Samples
) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.Tensor], int]:
    """Shapes of the layers' activations in one run, its outputs, and bytes of all of these per sample."""
    names = _activations(layers)
    feeds = samples.feeds(program.device, fast=True)
    wanted = [name for name in (*names, *program.outputs) if name not in feeds]
    with torch.no_grad():
        values = feeds | program.evaluate(feeds, outputs=list(dict.fromkeys(wanted)))
    for name in program.outputs:
        if values[name].is_floating_point() and not bool(torch.isfinite(values[name]).all()):
            bad = int((~torch.isfinite(values[name])).sum())
            raise NonFiniteError(
                f"the float model gives NaN or infinity on these samples, in {bad} of {values[name].numel()} values.",
                remedy="Check that the samples are preprocessed as the model expects, and no mask hides all of one.",
                where=name,
            )
    shapes = {name: tuple(values[name].shape) for name in names}
    total = sum(value.numel() * value.element_size() for value in values.values())
    return shapes, {name: values[name] for name in program.outputs}, total // samples.count
