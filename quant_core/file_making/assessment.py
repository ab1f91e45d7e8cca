"""Measure the finished file on samples that decided nothing, and put the whole story in one report."""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from quant_core.calibration import Samples
from quant_core.codes.outliers import pairs_for
from quant_core.errors import InternalError, ModelError
from quant_core.export import Placement
from quant_core.export.placement.forms import input_bits, is_read_whole
from quant_core.export.storage.model_file import data_file, file_bytes
from quant_core.ingest import Layer
from quant_core.preparation import Prepared
from quant_core.quantizers import ActivationGrid, QuantizedWeight, Simulation
from quant_core.sensitivity import Objective
from quant_core.spec import (
    BitPlan,
    Latency,
    LayerPlan,
    LayerReport,
    LayerSensitivity,
    Metrics,
    ModelSummary,
    ParetoFront,
    QuantizeSpec,
    Report,
    SensitivityTable,
)
from quant_core.spec import Simulation as Agreement
from quant_core.spec.bits import FLOAT_BITS
from quant_core.spec.preflight import PreflightPart
from quant_core.spec.progress import Tell
from quant_core.spec.width import KERNEL_BITS, stored_of
from quant_core.verification import (
    FOLDED,
    INT8_OPERATORS,
    NOT_FOUND,
    LayerNoise,
    SimulationCheck,
    check_layers,
    compare,
    kernels,
    layer_sqnr,
    measure_latency,
    read_saved,
    timing_session,
)
from quant_core.verification.integer_bias import with_integer_biases
from quant_core.version import __version__

_PACKAGES = ("torch", "onnx", "numpy", "pulp", "highspy")
# Rounding can fall to either side, so the two never match to the bit; an error of ours shows as far less than this.
_LEAST_AGREEMENT_DB = 10.0
_MOST_DIFFERENCE_DB = 3.0
_SAMPLES_INSIDE = 2
_SAMPLES_SIMULATED = 32
_SECONDS, _ERROR = 0.6, 0.02
_SLOWER = 0.8
_FEWEST_JUDGES = 3  # of a dozen samples
_COARSE_BIAS = (
    "the bias of {0} is coarse in integers, which count it in steps of its input times its weight: some channels are "
    "far larger than others. --equalize all may even them out; with --float-activations {0} the bias stays as it is."
)
_ELSEWHERE = (
    "Made for {}, which is not at hand: answers are those of the graph run as it is written on a CPU, latencies are "
    "those of onnxruntime on a CPU, kernels are not known."
)

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Choice:
    """What was decided and written.

    Attributes:
        plan: Bits by layer.
        placement: How each layer runs.
        grids: 8-bit grids by tensor.
        weights: Codes and scales by layer.
    """

    plan: BitPlan
    placement: Placement
    grids: Mapping[str, ActivationGrid]
    weights: Mapping[str, QuantizedWeight]


def assess(
    job: Prepared,
    spec: QuantizeSpec,
    path: Path,
    samples: Samples,
    objective: Objective,
    table: SensitivityTable,
    front: ParetoFront,
    choice: Choice,
    warnings: Sequence[str],
    *,
    on_progress: Tell,
) -> Report:
    """Run the file in onnxruntime and report quality, agreement with the simulation, kernels and latency.

    Args:
        job: The prepared job.
        spec: The request.
        path: The quantized file.
        samples: Held-back samples.
        objective: The loss that was used.
        table: The sensitivity table.
        front: Every non-dominated plan.
        choice: What was decided and written.
        warnings: What earlier stages want the user to know.
        on_progress: Called with the fraction done and a message; may raise to stop.

    Returns:
        The report, without timings.

    Raises:
        InternalError: If onnxruntime contradicts the simulation, in a layer or at the end, or quantizes a layer that
            was to stay float.
    """
    classes = objective.terms[0].holds_classes
    output = objective.terms[0].output
    on_progress(0.0, f"running {samples.count} held-back samples in onnxruntime and in the simulation")
    held, coarse = _as_held(job, choice)
    simulation, check = simulate(job.model, job, held), SimulationCheck()
    opened = _open(job, path)

    def hold_against(part: slice, expected: Arrays, returned: Arrays) -> None:
        if check.agreement.samples >= _SAMPLES_SIMULATED:
            return
        feeds = {name: array[part] for name, array in samples.inputs.items()}
        check.add(expected[output], simulation.run(feeds)[output], returned[output])

    metrics = compare(
        opened.reference,
        opened.quantized,
        samples.inputs,
        classes=classes,
        labels=samples.labels,
        batch=job.batch_size,
        headline=output,
        on_batch=hold_against,
    )
    on_progress(0.4, "timing float and quantized in turn")
    latency = measure_latency(
        opened.reference, opened.quantized, samples.inputs, seconds=_SECONDS, error=_ERROR, warm_up=1
    )  # both have answered all samples already
    optimized = opened.optimized
    del opened  # two models in memory
    on_progress(0.6, "looking inside the layers")
    noise = _look_inside(job, path, choice, samples, simulation)
    agreement = check.result(classes=classes)
    _check_agreement(agreement)
    on_progress(0.8, "reading onnxruntime's optimized graph")
    if job.target.runs_here:
        found = kernels(path, job.layers, optimized)
        found |= {layer.name: FOLDED for layer in job.layers if is_read_whole(layer, job.model)}
        fallen = _check_kernels(choice.placement, found)
    else:
        found = {layer.name: NOT_FOUND for layer in job.layers}
        fallen = [_ELSEWHERE.format(job.target.name)]
    return Report(
        model=_summary(job, path, choice.plan),
        spec=spec,
        loss=f"{objective.name} ({objective.guessed})" if objective.guessed else objective.name,
        plan=choice.plan,
        layers=_layers(job, table, choice, found, noise),
        metrics=metrics,
        latency_ms=latency,
        simulation=agreement,
        pareto=tuple(point.model_copy(update={"bits": ()}) for point in front.points),
        kept_parts=tuple(PreflightPart(**vars(part)) for part in job.source.quantized_parts),
        warnings=(
            *warnings,
            *fallen,
            *coarse,
            *_few_judges(samples.count),
            *_not_compared(job, metrics),
            *_not_worth_it(job, path, latency),
        ),
        peak_memory_bytes=_peak_memory(),
        seed=spec.seed,
        versions={
            "bitwright": __version__,
            "python": sys.version.split()[0],
            "onnxruntime": onnxruntime.__version__,
        }
        | {name: version(name) for name in _PACKAGES},
    )


@dataclass(frozen=True, eq=False)
class _Opened:
    """Both models in onnxruntime, ready to be timed, and the graph that the quantized one became."""

    reference: onnxruntime.InferenceSession
    quantized: onnxruntime.InferenceSession
    optimized: onnx.ModelProto


def _open(job: Prepared, path: Path) -> _Opened:
    # Loading keeps one core busy, and it is not Python's.
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1, "bitwright-reference") as pool:
        reference = pool.submit(timing_session, job.reference.path)
        try:
            # onnxruntime's rewrites for CPUs fail on some signed codes and on E4M3, or make garbage of them.
            quantized = timing_session(path, graph=Path(folder), literal=not job.target.runs_here)
        except ModelError as error:
            raise InternalError(f"The quantized model does not run in onnxruntime. {error}") from error
        return _Opened(reference.result(), quantized, read_saved(Path(folder)))


def _few_judges(count: int) -> list[str]:
    if count >= _FEWEST_JUDGES:
        return []
    judges = "1 held-back sample" if count == 1 else f"{count} held-back samples"
    return [
        f"quality was judged by {judges}, and may lie far off on others. A dozen samples in all are the fewest that do."
    ]


def _not_compared(job: Prepared, metrics: Metrics) -> list[str]:
    return [
        f"output {name!r} is not compared: its size depends on values, or it holds no numbers."
        for name in job.program.outputs
        if name not in metrics.sqnr_db_by_output
    ]


def _not_worth_it(job: Prepared, path: Path, latency: Latency) -> list[str]:
    """Say so where the file has grown, or lost time."""
    told, size, before = [], file_bytes(path), job.source.file_bytes
    if size >= before:
        told.append(
            f"the file is no smaller than the float one ({size:,} of {before:,} bytes): scales and nodes outweigh what "
            "such small layers save. Add `float` to the candidate bits and ask for a size."
        )
    if job.target.runs_here and latency.speedup < _SLOWER:
        told.append(
            f"the file runs at {latency.speedup:.2f} of the float model's speed, batch {latency.batch}: rounding "
            "activations costs more here than integer kernels save. With activation_bits float it runs like that model."
        )
    return told


def simulate(model: ir.Model, job: Prepared, choice: Choice) -> Simulation:
    """Give the network that a file should compute.

    Args:
        model: The graph of the job, or its copy that takes any number of samples.
        job: The prepared job.
        choice: What was decided.

    Returns:
        Its simulation.
    """
    dynamic = [name for name, form in choice.placement.forms.items() if form == "dynamic"]
    blocks = {
        name: choice.weights[name].block_size or 0
        for name, form in choice.placement.forms.items()
        if form == "block"
    }
    return Simulation(
        model, job.layers, choice.weights, choice.grids, dynamic, blocks=blocks, device=job.device
    )


def _as_held(job: Prepared, choice: Choice) -> tuple[Choice, list[str]]:
    """Round biases as onnxruntime's integer kernels do, and say where that costs more than the activations' grid."""
    if not job.target.runs_here:
        return choice, []
    weights, coarse = with_integer_biases(
        job.model, job.layers, choice.weights, choice.placement, choice.grids
    )
    return replace(choice, weights=weights), [_COARSE_BIAS.format(name) for name in coarse]


def _look_inside(
    job: Prepared, path: Path, choice: Choice, samples: Samples, simulation: Simulation
) -> Mapping[str, LayerNoise]:
    """Check every layer by itself on a few samples, and measure where error enters."""
    fixed = [value.shape[0] for value in job.model.graph.inputs if value.shape]
    count = next((size for size in fixed if isinstance(size, int)), min(_SAMPLES_INSIDE, samples.count))
    rows = np.arange(count) % samples.count
    feeds = {name: array[rows] for name, array in samples.inputs.items()}
    places, literal = (choice.placement, choice.grids), not job.target.runs_here
    net = job.model, job.layers
    found = check_layers(path, *net, simulation, *places, choice.weights, feeds, literal=literal)
    return layer_sqnr(*net, job.program, simulation, choice.placement, feeds, found)


def _check_agreement(agreement: Agreement) -> None:
    apart = abs(agreement.predicted_sqnr_db - agreement.measured_sqnr_db)
    if agreement.agreement_sqnr_db < _LEAST_AGREEMENT_DB and apart > _MOST_DIFFERENCE_DB:
        raise InternalError(
            f"the simulation foretold an output SQNR of {agreement.predicted_sqnr_db:.1f} dB, but onnxruntime gives "
            f"{agreement.measured_sqnr_db:.1f} dB; the file is not handed out."
        )


def _check_kernels(placement: Placement, found: Mapping[str, str]) -> list[str]:
    warnings = []
    for name, form in placement.forms.items():
        integer = all(kernel in INT8_OPERATORS for kernel in found[name].split(", "))
        if form in {"static", "dynamic", "block"} and not integer:
            warnings.append(f"{name} is stored in integers but onnxruntime runs it as {found[name]}.")
        if form in {"float", "weight_only", "wide"} and integer:
            raise InternalError(f"{name} was to stay float, but onnxruntime runs it as {found[name]}.")
    return warnings


def _summary(job: Prepared, path: Path, plan: BitPlan) -> ModelSummary:
    size = file_bytes(path)
    exported = onnx.load(path, load_external_data=False)
    return ModelSummary(
        name=job.source.path.name,
        float_bytes=job.source.file_bytes,
        quantized_bytes=size,
        predicted_bytes=plan.predicted_bytes,
        budget_bytes=job.budget,
        data_file=data_file(path).name if data_file(path).exists() else None,
        ratio=size / job.source.file_bytes,
        opset=next(entry.version for entry in exported.opset_import if entry.domain in {"", "ai.onnx"}),
        parameters=sum(layer.parameters for layer in job.layers),
        macs=sum(layer.macs for layer in job.layers),
    )


def _layers(
    job: Prepared,
    table: SensitivityTable,
    choice: Choice,
    found: Mapping[str, str],
    noise: Mapping[str, LayerNoise],
) -> tuple[LayerReport, ...]:
    rows = {row.name: row for row in table.layers}
    forms = choice.placement.forms
    return tuple(
        LayerReport(
            name=layer.name,
            op=layer.op,
            weight=layer.weight,
            parameters=layer.parameters,
            macs=layer.macs,
            weight_bits=chosen.bits,
            outliers=0 if chosen.sparse is None else pairs_for(chosen.sparse, layer.parameters),
            activation_bits=_input_bits(layer, choice.placement),
            form=forms[layer.name],
            kernel=found[layer.name],
            narrow_bits=chosen.narrow_bits,
            narrow_share=chosen.narrow_share,
            trellis=_has_trellis(layer, choice),
            bytes=_bytes(job.costs.layers[layer.name], chosen),
            trace=rows[layer.name].trace,
            trace_stderr=rows[layer.name].trace_stderr,
            sensitivity=_expected_loss(rows[layer.name], chosen),
            sensitivity_stderr=(rows[layer.name].sensitivity_stderr or {}).get(chosen.bits),
            reason=chosen.reason,
            sqnr_db=noise[layer.name].accumulated_db,
            own_sqnr_db=noise[layer.name].own_db,
        )
        for layer, chosen in zip(job.layers, choice.plan.layers, strict=True)
    )


def _has_trellis(layer: Layer, choice: Choice) -> bool:
    return layer.name in choice.weights and choice.weights[layer.name].trellis


def _bytes(sizes: Mapping[int, int], chosen: LayerPlan) -> int:
    """Bytes of a layer's weight; of channels with two widths each at its own, without what decodes or orders them."""
    wide = sizes[chosen.width]
    narrow = wide if chosen.narrow_bits is None else sizes[chosen.narrow_bits]
    return round(wide + chosen.narrow_share * (narrow - wide))


def _expected_loss(row: LayerSensitivity, chosen: LayerPlan) -> float:
    if chosen.expected_loss is not None:
        return chosen.expected_loss
    of_weight = (row.sensitivity | (row.sparse_sensitivity or {}))[stored_of(chosen.width)]
    return of_weight + (row.activation_sensitivity or {}).get(chosen.activation_bits or FLOAT_BITS, 0.0)


def _input_bits(layer: Layer, placement: Placement) -> int:
    # An integer kernel has written its output in 8 bits, whoever reads it.
    if placement.forms[layer.name] == "wide" and placement.wide.isdisjoint(layer.inputs):
        return KERNEL_BITS
    return input_bits(placement.forms[layer.name])


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
