"""Sensitivities of a prepared job, for a quantization or for their own sake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch

from quant_core.artifacts import COSTS, INTERACTIONS, SENSITIVITY, SPECTRUM_HTML, SPECTRUM_JSON, whole_folder
from quant_core.calibration import RangeWatch, Samples, split_samples
from quant_core.checkpoints import Checkpoints, find_rounded, keep_rounded, probe_log
from quant_core.effort import Effort, plan_effort
from quant_core.equalizing import equalize, expected_bits
from quant_core.errors import SpecError
from quant_core.executor.layout import fast_layout
from quant_core.preparation import Prepared, prepare
from quant_core.pricing import price
from quant_core.quantizers.input_moments import KeptMoments
from quant_core.quantizers.rounding import RoundedWeights, round_weights
from quant_core.report.spectrum_page import render_spectrum
from quant_core.scored import Scored, check_reuse, read_tables, refuse_other
from quant_core.sensitivity import Objective, Spectrum, choose_loss, find_sample_axes, missing_scores
from quant_core.sensitivity.assignment import Crew
from quant_core.sensitivity.probe_log import ProbeLog
from quant_core.sensitivity.question import Question
from quant_core.sensitivity.spectra import spectra, spectrum_table
from quant_core.sensitivity.table import Answer, answer
from quant_core.sensitivity.workers import OneThread, Workers
from quant_core.spec import (
    AnalyzeSpec,
    Budget,
    Progress,
    ProgressCallback,
    QuantizeSpec,
    Request,
    SensitivityTable,
    Stage,
)
from quant_core.spec.spectrum import SpectrumTable

_SCORING_SHARE = 1 / 3
_TELLING = 4
"""Samples that tell the loss."""

_ANY_SIZE = Budget(size=2.0**62)

Tell = Callable[[float, str], None]


def validate(model: Path, data: Path, spec: AnalyzeSpec) -> None:
    """Check a request as far as that is possible without starting it; nothing is written.

    Args:
        model: The float ONNX file.
        data: The sample file.
        spec: The request.

    Raises:
        UserError: If the job could not run; names the file, layer or field and the remedy.
    """
    prepare(model, data, _as_quantization(spec))


def analyze(
    model: Path,
    data: Path,
    spec: AnalyzeSpec,
    out: Path,
    on_progress: ProgressCallback | None = None,
    *,
    checkpoints: Checkpoints | None = None,
) -> SensitivityTable:
    """Estimate what each layer loses at each bit-width, by the method that is asked for.

    Writes `sensitivity.json`, and beside it `costs.json`, with which a plan can be made of it, `interactions.npz` where
    the method tells something of pairs of layers, and `spectrum.json` and `spectrum.html` where they were asked for;
    all of them or none.

    Args:
        model: The float ONNX file.
        data: The sample file, `.npz` or `.npy`.
        spec: The request.
        out: The folder for the results, made if missing; or, ending in `.json`, the table's file.
        on_progress: Told where the job is; raising `CancelledError` from it stops the job.
        checkpoints: What an attempt at this very job left that was cut off, to go on from; this one leaves it there for
            the next.

    Returns:
        The table.

    Raises:
        UserError: If the job cannot be done; names the file, layer or field and the remedy.
        CancelledError: If the callback raised it.
    """

    def tell(stage: Stage) -> Tell:
        def told(fraction: float, message: str) -> None:
            if on_progress is not None:
                on_progress(Progress(stage=stage, fraction=min(1.0, fraction), message=message))

        return told

    folder, name = (out.parent, out.name) if out.suffix == ".json" else (out, SENSITIVITY)
    with whole_folder(folder) as made:
        tell("ingest")(0, f"reading {model.name}")
        whole = _as_quantization(spec)
        job = prepare(model, data, whole)
        tell("ingest")(1, f"{len(job.layers)} layers; onnxruntime and the executor agree")
        calibration = job.samples
        if calibration.count >= 2 * (calibration.batch or 1):
            calibration, _ = split_samples(calibration, spec.held_back, spec.seed)
        scaled_for = expected_bits(job, spec.budget)
        job = equalize(job, calibration, whole, scaled_for, tell("rounding"))
        calibration = job.shorten(calibration)
        seen, unseen = apart(calibration, spec)
        rounded = find_rounded(checkpoints)
        if rounded is None:
            rounded = round_candidates(job, seen, spec, tell("rounding"))
            keep_rounded(checkpoints, rounded)
        scored = score(job, unseen, rounded, spec, tell("sensitivity"), checkpoints).scaled_for(scaled_for)
        scored = scored.with_outliers(rounded)
        scored.write(made, name)
        (made / COSTS).write_text(price(job, whole, calibration).model_dump_json(indent=1))
        if scored.spectra:
            densities = spectrum_table(scored.objective.name, spec.seed, scored.spectra)
            write_densities(model.name, densities, made)
        tell("report")(1, f"{scored.table.samples} samples, {scored.table.stopped}")
        return scored.table


def apart(samples: Samples, request: Request) -> tuple[Samples, Samples]:
    """Take samples to round with apart from others to score the result on.

    GPTQ fits its codes to the inputs it sees. Scored on the same few samples, a layer with more inputs than samples
    looks harmless at any width. Codes rounded one by one have seen no sample, so that all are left to score them on.

    Args:
        samples: Samples that may decide something.
        request: How codes are chosen, the effort, and the seed of the choice.

    Returns:
        Samples to round with, and samples to score with; all of them twice where there are too few to share.
    """
    if request.by_value or samples.count < 2 * (samples.batch or 1):
        return samples, samples
    return split_samples(samples, _SCORING_SHARE, request.seed)


def round_candidates(
    job: Prepared,
    samples: Samples,
    request: Request,
    tell: Tell,
    kept: KeptMoments | None = None,
    watch: RangeWatch | None = None,
) -> RoundedWeights:
    """Round every layer at each of its candidate widths.

    Args:
        job: The prepared job.
        samples: Samples to round with.
        request: What is asked.
        tell: Called with the fraction done and a message.
        kept: Where moments of layers' inputs are left for the next time.
        watch: Shown the run over the samples that moments are taken from.

    Returns:
        Layer name -> bits -> codes and scales.
    """
    return round_weights(
        job.program,
        job.model,
        job.layers,
        job.stored,
        samples,
        request,
        batch_size=job.batch_size,
        device=job.device,
        seed=request.seed,
        on_progress=tell,
        kept=kept,
        watch=watch,
    )


def score(
    job: Prepared,
    samples: Samples,
    rounded: RoundedWeights,
    request: Request,
    tell: Tell,
    checkpoints: Checkpoints | None = None,
) -> Scored:
    """Estimate what each layer loses at each of its candidate widths.

    Args:
        job: The prepared job.
        samples: Samples to score with.
        rounded: Every layer at each of its widths.
        request: What is asked.
        tell: Called with the fraction done and a message.
        checkpoints: What was measured by an attempt that was cut off, and where this one writes it down.

    Returns:
        The loss, the table, and warnings.
    """
    log = probe_log(checkpoints)
    if log is not None and log.known:
        tell(0.0, f"{log.known} measurements taken from the last attempt")
    with _asked(job, samples, rounded, request, tell, log) as question:
        if isinstance(request, AnalyzeSpec):
            found, densities = _answer_all(question, request)
        else:
            found, densities = answer(question, request.sensitivity, request.scored_as), {}
    if found.interactions is not None or found.similarity is not None:
        found = found.referring_to(INTERACTIONS)
    bits = {name: choice.bits for name, choice in job.candidates.items()}
    return Scored(question.objective, found, missing_scores(found.table, bits), densities)


def estimate_densities(
    job: Prepared, samples: Samples, rounded: RoundedWeights, request: Request, tell: Tell
) -> SpectrumTable:
    """Estimate the eigenvalue density of the loss's Hessian, of every layer and of the whole network.

    Args:
        job: The prepared job.
        samples: Samples to estimate with; a few are used.
        rounded: Every layer at each of its widths.
        request: What is asked.
        tell: Called with the fraction done and a message.

    Returns:
        The densities.
    """
    with _asked(job, samples, rounded, request, tell) as question:
        return spectrum_table(question.objective.name, request.seed, spectra(question))


def write_densities(model: str, densities: SpectrumTable, folder: Path) -> None:
    """Write `spectrum.json` and `spectrum.html`.

    Args:
        model: File name of the model.
        densities: The densities.
        folder: An existing folder.
    """
    (folder / SPECTRUM_JSON).write_text(densities.model_dump_json(indent=1))
    (folder / SPECTRUM_HTML).write_text(render_spectrum(model, densities), encoding="utf-8")


def reuse(job: Prepared, samples: Samples, request: Request, folder: Path) -> Scored:
    """Take the sensitivities of an earlier job on the same model instead of estimating them again.

    Args:
        job: The prepared job.
        samples: Samples to score with, of which a few tell the loss.
        request: What is asked; its method plays no part.
        folder: The earlier job's folder.

    Returns:
        The loss, the table, and warnings.

    Raises:
        SpecError: If there is no table, or it belongs to another model, loss or rounding.
    """
    check_reuse(folder, job.layers, request.scored_as)
    table, pairs = read_tables(folder)
    few = samples.take(np.arange(samples.batch or min(samples.count, _TELLING)))
    feeds = {name: torch.from_numpy(array).to(job.device) for name, array in few.inputs.items()}
    labels = None if few.labels is None else torch.from_numpy(few.labels).to(job.device)
    objective = _objective(job, feeds, labels, few, request)
    refuse_other([] if table.loss == objective.name else ["loss"], folder)
    bits = {name: choice.bits for name, choice in job.candidates.items()}
    return Scored(objective, Answer(table, pairs), missing_scores(table, bits), {})


@contextmanager
def _asked(
    job: Prepared,
    samples: Samples,
    rounded: RoundedWeights,
    request: Request,
    tell: Tell,
    log: ProbeLog | None = None,
) -> Iterator[Question]:
    """What the estimators are asked about the job, while those who share the work are there."""
    effort = _limits(job, samples, request)
    samples = samples.take(np.arange(effort.samples))
    feeds = {name: torch.from_numpy(array).to(job.device) for name, array in samples.inputs.items()}
    labels = None if samples.labels is None else torch.from_numpy(samples.labels).to(job.device)
    objective = _objective(job, feeds, labels, samples, request)
    bits = {name: choice.bits for name, choice in job.candidates.items()}
    with _crew(job, feeds, labels, request) as crew:
        yield Question(
            job.program,
            job.layers,
            feeds,
            lambda layer, bits: rounded[layer.name][bits],
            objective,
            labels=labels,
            bits=bits,
            seed=request.seed,
            fixed_batch=samples.batch,
            padding=job.padding,
            max_probes=effort.probes,
            thrifty=request.effort != "best",
            seconds=request.seconds if isinstance(request, AnalyzeSpec) else None,
            crew=crew,
            log=log,
            on_progress=tell,
        )


def _answer_all(question: Question, request: AnalyzeSpec) -> tuple[Answer, dict[str, Spectrum]]:
    question = question.within(request.tolerance)
    table_share = 0.4 if request.spectrum else 1.0
    found = answer(
        question.part(0.0, table_share),
        request.sensitivity,
        request.scored_as,
        activations=request.activations,
    )
    return found, spectra(question.part(table_share, 1.0)) if request.spectrum else {}


def _limits(job: Prepared, samples: Samples, request: Request) -> Effort:
    effort = plan_effort(job, samples.count, request.sensitivity, fast=request.effort == "fast")
    if not isinstance(request, AnalyzeSpec):
        return effort
    batch = samples.batch or 1
    used = effort.samples if request.samples is None else min(samples.count, request.samples)
    return Effort(samples=max(batch, used // batch * batch), probes=request.probes or effort.probes)


def _objective(
    job: Prepared,
    feeds: Mapping[str, torch.Tensor],
    labels: torch.Tensor | None,
    samples: Samples,
    request: Request,
) -> Objective:
    few = samples.batch or min(samples.count, _TELLING)
    first = {name: fast_layout(tensor[:few]) for name, tensor in feeds.items()}
    with torch.no_grad():
        outputs = job.program.evaluate(first)
    axes = find_sample_axes(job.program, first, outputs, samples.batch)
    few_labels = None if labels is None else labels[:few]
    return choose_loss(job.model, outputs, few, axes, few_labels, request.loss, request.loss_weights)


def _crew(
    job: Prepared, feeds: Mapping[str, torch.Tensor], labels: torch.Tensor | None, request: Request
) -> AbstractContextManager[Crew | None]:
    if job.device == "cpu":
        if request.workers == 1:
            return nullcontext(OneThread())
        devices = ["cpu"] * (request.workers or 0)
    else:
        present = torch.cuda.device_count()
        wanted = request.workers or (present if request.device == "auto" else 1)
        if wanted > present:
            raise SpecError(
                f"{wanted} workers need as many GPUs, and torch sees {present}.",
                remedy="Ask for fewer workers, or none to use all GPUs.",
                where="workers",
            )
        devices = [f"cuda:{index}" for index in range(wanted)] if wanted > 1 else []
    if not devices:
        return nullcontext(None)
    return Workers(job.graph, feeds, labels, devices)


def _as_quantization(spec: AnalyzeSpec) -> QuantizeSpec:
    shared = {name: getattr(spec, name) for name in Request.model_fields if name != "sensitivity"}
    return QuantizeSpec(budget=_ANY_SIZE, **shared)
