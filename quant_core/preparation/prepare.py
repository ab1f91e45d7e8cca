"""Everything that is checked and known before the first probe: the model, its layers, the samples, the sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
import torch

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.file_costs import FileCosts
from quant_core.calibration import Samples, load_samples
from quant_core.calibration.padding import Padding
from quant_core.errors import ModelError, NonFiniteError, SpecError
from quant_core.executor import Program, compile_model
from quant_core.export import Target
from quant_core.ingest import (
    Layer,
    Source,
    read_model,
)
from quant_core.ingest.declared_outputs import correct_declared
from quant_core.preparation.arrangement import arrange
from quant_core.preparation.batching import Batching, free_samples
from quant_core.preparation.independence import check_independence
from quant_core.preparation.notes import copies_note, grid_note
from quant_core.preparation.padding import find_padding
from quant_core.preparation.reference import Reference, find_reference
from quant_core.preparation.refusals import require_floats
from quant_core.preparation.scores import Scores, with_scores
from quant_core.preparation.single_samples import one_by_one
from quant_core.preparation.whole_runs import ANALYSED_BY_RUNS, by_whole_runs
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.spec import QuantizeSpec
from quant_core.spec.memory_share import memory_share

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
        scores: Outputs that the user's model does not have; None for nearly all models.
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
    scores: Scores | None = None
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
    given, scores = with_scores(read_model(model_path, spec.quantized_parts))
    source = by_whole_runs(given, data_path)
    where, arranged = str(model_path), arrange(source, spec)
    if arranged.is_hopeless or not arranged.leaves_integers:
        arranged.check_budget()  # else floats may make the file smaller, which samples tell
    samples = load_samples(data_path, arranged.model)
    program = compile_model(arranged.model, device=device)
    first = samples.first(samples.batch or _PARITY_SAMPLES)
    try:
        reference = find_reference(source, arranged.model, program, first)
    except ModelError as failure:
        samples = one_by_one(source, (arranged.whole, arranged.model), samples, failure)
        first, program = samples.first(1), compile_model(arranged.model, device=device)
        reference = find_reference(source, arranged.model, program, first)
    in_float = arranged.faster_in_float(program, samples)
    if in_float.layers:
        arranged = arranged.with_float(in_float.layers)
        program = compile_model(arranged.model, device=device)
        reference = find_reference(source, arranged.model, program, first)
    shapes, outputs, bytes_per_sample = _measure(program, arranged.activations, first)
    require_floats(outputs, where)
    output_shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    corrected = correct_declared(arranged.model, output_shapes)
    if samples.batch is None and not source.quantized_parts:
        check_independence(program, first.inputs, outputs, where)
    affordable = _affordable(bytes_per_sample)
    batching = Batching(arranged.model, program, samples, (ANALYSED_BY_RUNS,))
    if not source.whole_runs:
        batching = free_samples(arranged.model, program, arranged.layers, samples, affordable)
    arranged = arranged.with_sizes(shapes, first.count)
    arranged.check_budget()
    return Prepared(
        source=source,
        model=arranged.model,
        graph=batching.model,
        program=batching.program,
        layers=arranged.layers,
        samples=batching.samples,
        batch_size=batching.samples.batch or affordable,
        candidates=arranged.candidates,
        stored=arranged.stored,
        costs=arranged.costs,
        budget=arranged.budget,
        target=arranged.target,
        reference=reference,
        padding=find_padding(batching.model, batching.program, batching.samples),
        scores=scores,
        notes=(
            *(() if scores is None else (scores.note,)),
            *copies_note(samples),
            *reference.notes,
            *corrected,
            *batching.notes,
            *in_float.notes,
            *grid_note(arranged.layers, arranged.candidates, arranged.model, spec, arranged.target),
        ),
    )


def _affordable(bytes_per_sample: int) -> int:
    """Samples a run."""
    most = min(_LARGEST_BATCH, _BATCH_BYTES // max(1, bytes_per_sample))
    return max(1, int(most * memory_share()))


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


def _measure(
    program: Program, activations: tuple[str, ...], samples: Samples
) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.Tensor], int]:
    """Shapes of activations in one run, its outputs, and bytes of all of these per sample."""
    feeds = samples.feeds(program.device, fast=True)
    wanted = [name for name in (*activations, *program.outputs) if name not in feeds]
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
    shapes = {name: tuple(values[name].shape) for name in activations}
    total = sum(value.numel() * value.element_size() for value in values.values())
    return shapes, {name: values[name] for name in program.outputs}, total // samples.count
