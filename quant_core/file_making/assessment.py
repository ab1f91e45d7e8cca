"""Measure the finished file on samples that decided nothing, and report what was found."""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from quant_core.calibration import Samples
from quant_core.errors import InternalError, ModelError
from quant_core.export import Placement
from quant_core.export.placement.forms import is_read_whole
from quant_core.export.storage.model_file import data_file, file_bytes
from quant_core.file_making.choice import Choice, simulate
from quant_core.file_making.layer_reports import layer_reports
from quant_core.preparation import Prepared
from quant_core.quantizers import Simulation
from quant_core.scoring.scored import Scored
from quant_core.spec import (
    BitPlan,
    Latency,
    Metrics,
    ModelSummary,
    QuantizeSpec,
    Report,
)
from quant_core.spec import Simulation as Agreement
from quant_core.spec.preflight import PreflightPart
from quant_core.spec.progress import Tell
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
_ROUNDS_NOTHING = frozenset({"float", "weight_only", "gather"})
_COARSE_BIAS = (
    "the bias of {0} is coarse in integers, which count it in steps of its input times its weight: some channels are "
    "far larger than others. --equalize all may even them out; with --float-activations {0} the bias stays as it is."
)
_ELSEWHERE = (
    "Made for {}, which is not at hand: answers are those of the graph run as it is written on a CPU, latencies are "
    "those of onnxruntime on a CPU, kernels are not known."
)

Arrays = Mapping[str, npt.NDArray[Any]]


def assess(
    job: Prepared,
    spec: QuantizeSpec,
    path: Path,
    samples: Samples,
    scored: Scored,
    choice: Choice,
    *,
    on_progress: Tell,
) -> Report:
    """Run the file in onnxruntime and report quality, agreement with the simulation, kernels and latency.

    Args:
        job: The prepared job.
        spec: The request.
        path: The quantized file.
        samples: Held-back samples.
        scored: The loss that was used, and the sensitivities.
        choice: What was decided and written.
        on_progress: Called with the fraction done and a message; may raise to stop.

    Returns:
        The report as far as the file tells it: without how the plan came about, earlier warnings and timings.

    Raises:
        InternalError: If onnxruntime contradicts the simulation, in a layer or at the end, or quantizes a layer that
            was to stay float.
    """
    objective = scored.objective
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
    noise = _look_inside(job, path, choice.placement, samples, simulation)
    agreement = check.result(classes=classes)
    _check_agreement(agreement)
    on_progress(0.8, "reading onnxruntime's optimized graph")
    found, fallen = _find_kernels(job, path, choice.placement, optimized)
    return Report(
        model=_summary(job, path, choice.plan),
        spec=spec,
        loss=f"{objective.name} ({objective.guessed})" if objective.guessed else objective.name,
        plan=choice.plan,
        layers=layer_reports(job, scored.table, choice, found, noise),
        metrics=metrics,
        latency_ms=latency,
        simulation=agreement,
        pareto=(),
        kept_parts=tuple(PreflightPart(**vars(part)) for part in job.source.quantized_parts),
        warnings=(
            *fallen,
            *coarse,
            *_few_judges(samples.count),
            *_not_compared(job, metrics),
            *_not_worth_it(job, path, latency, choice.placement),
        ),
        peak_memory_bytes=_peak_memory(),
        seed=spec.seed,
        versions=_versions(),
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


def _not_worth_it(job: Prepared, path: Path, latency: Latency, placement: Placement) -> list[str]:
    """Say so where the file has grown, or lost time."""
    told, size, before = [], file_bytes(path), job.source.file_bytes
    if size >= before:
        told.append(
            f"the file is no smaller than the float one ({size:,} of {before:,} bytes): scales and nodes outweigh what "
            "such small layers save. Add `float` to the candidate bits and ask for a size."
        )
    if job.target.runs_here and latency.speedup < _SLOWER:
        rounds = not set(placement.forms.values()) <= _ROUNDS_NOTHING
        why = (
            ": rounding activations costs more here than integer kernels save. With activation_bits float it runs like "
            "that model."
            if rounds
            else ", though no activations are rounded."
        )
        told.append(
            f"the file runs at {latency.speedup:.2f} of the float model's speed, batch {latency.batch}{why}"
        )
    return told


def _as_held(job: Prepared, choice: Choice) -> tuple[Choice, list[str]]:
    """Round biases as onnxruntime's integer kernels do, and say where that costs more than the activations' grid."""
    if not job.target.runs_here:
        return choice, []
    weights, coarse = with_integer_biases(
        job.model, job.layers, choice.weights, choice.placement, choice.grids
    )
    return replace(choice, weights=weights), [_COARSE_BIAS.format(name) for name in coarse]


def _look_inside(
    job: Prepared, path: Path, placement: Placement, samples: Samples, simulation: Simulation
) -> Mapping[str, LayerNoise]:
    """Check every layer by itself on a few samples, and measure where error enters."""
    fixed = [value.shape[0] for value in job.model.graph.inputs if value.shape]
    count = next((size for size in fixed if isinstance(size, int)), min(_SAMPLES_INSIDE, samples.count))
    rows = np.arange(count) % samples.count
    feeds = {name: array[rows] for name, array in samples.inputs.items()}
    found = check_layers(path, simulation, placement, feeds, literal=not job.target.runs_here)
    return layer_sqnr(job.program, simulation, placement, feeds, found)


def _check_agreement(agreement: Agreement) -> None:
    apart = abs(agreement.predicted_sqnr_db - agreement.measured_sqnr_db)
    if agreement.agreement_sqnr_db < _LEAST_AGREEMENT_DB and apart > _MOST_DIFFERENCE_DB:
        raise InternalError(
            f"the simulation foretold an output SQNR of {agreement.predicted_sqnr_db:.1f} dB, but onnxruntime gives "
            f"{agreement.measured_sqnr_db:.1f} dB; the file is not handed out."
        )


def _find_kernels(
    job: Prepared, path: Path, placement: Placement, optimized: onnx.ModelProto
) -> tuple[dict[str, str], list[str]]:
    """The kernel of every layer by name, and what to tell of those that are not what was meant."""
    if not job.target.runs_here:
        return {layer.name: NOT_FOUND for layer in job.layers}, [_ELSEWHERE.format(job.target.name)]
    found = kernels(path, job.layers, optimized)
    found |= {layer.name: FOLDED for layer in job.layers if is_read_whole(layer, job.model)}
    return found, _check_kernels(placement, found)


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


def _versions() -> dict[str, str]:
    own = {"bitwright": __version__, "python": sys.version.split()[0], "onnxruntime": onnxruntime.__version__}
    return own | {name: version(name) for name in _PACKAGES}


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
