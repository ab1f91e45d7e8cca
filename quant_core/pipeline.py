"""The stages of one job in order; nothing else knows the order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from quant_core.allocation.limits import check_reach, read_limits
from quant_core.allocation.plan_bits import file_front
from quant_core.allocation.plan_problem import PairLosses, PlanProblem
from quant_core.artifacts import COSTS, MODEL, PARETO, check_place, whole_folder
from quant_core.calibration import RangeWatch, Samples, split_samples
from quant_core.checkpoints import SENSITIVITIES, Checkpoints, find_rounded, keep_rounded
from quant_core.errors import SamplesError
from quant_core.export import place
from quant_core.file_making.activation_grids import ActivationGrids
from quant_core.file_making.assessment import assess
from quant_core.file_making.band_search import find_in_band
from quant_core.file_making.file_maker import FileMaker
from quant_core.file_making.open_activations import open_activations
from quant_core.journal import Journal
from quant_core.preparation import Prepared, prepare
from quant_core.preparation.equalizing import equalize, expected_bits
from quant_core.preparation.pricing import price
from quant_core.quantizers.input_moments import KeptMoments
from quant_core.report import write_report
from quant_core.scoring.densities import estimate_densities, write_densities
from quant_core.scoring.effort import plan_effort
from quant_core.scoring.rounded import apart, further_folds, round_candidates
from quant_core.scoring.score import fold_of, reuse, score
from quant_core.scoring.scored import Scored, check_reuse, equalized_bits
from quant_core.scoring.unreached import spare_unreached
from quant_core.sensitivity import Batch, activation_bytes, split_batches
from quant_core.sensitivity.orthogonality import ompq_importance, orm
from quant_core.spec import FLOAT_BITS, CostTable, ProgressCallback, QuantizeSpec, Report
from quant_core.spec.budget import CONFIDENCE
from quant_core.spec.memory_share import memory_share
from quant_core.trials import MOST_EVALUATIONS, Judge, PlanMeter

_VERIFYING_SHARE = 0.5
"""Share of the held-back samples that a search for an accuracy band does not see."""


def validate(model: Path, data: Path, spec: QuantizeSpec) -> None:
    """Check a request as far as that is possible without starting it; nothing is written.

    Args:
        model: The float ONNX file.
        data: The sample file.
        spec: The request.

    Raises:
        UserError: If the job could not run; names the file, layer or field and the remedy.
    """
    job = _prepared(model, data, spec)
    _, held_back = split_samples(job.samples, spec.held_back, spec.seed)
    _for_the_band(held_back, spec)


def quantize(
    model: Path,
    data: Path,
    spec: QuantizeSpec,
    out: Path,
    on_progress: ProgressCallback | None = None,
    *,
    earlier: Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> Report:
    """Quantize a model: bits by sensitivity under a budget, codes, file, measurements, report.

    Writes `model.onnx`, `report.json`, `report.html`, `sensitivity.json`, `pareto.json` and `costs.json` into a folder,
    and `spectrum.json` and `spectrum.html` where they were asked for; all of them or none. The same inputs, spec and
    number of threads give the same model bytes.

    Args:
        model: The float ONNX file.
        data: The sample file, `.npz` or `.npy`.
        spec: The request.
        out: The folder for the results; made if missing. Those of an earlier job are replaced, nothing else.
        on_progress: Told where the job is; raising `CancelledError` from it stops the job.
        earlier: Folder of an earlier job on this model and these samples, whose sensitivities are taken over: codes are
            rounded again, no probe is run.
        checkpoints: What an attempt at this very job left that was cut off, to go on from; this one leaves it there for
            the next. The file is the same to the byte as without.

    Returns:
        The report.

    Raises:
        UserError: If the job cannot be done; names the file, layer or field and the remedy.
        CancelledError: If the callback raised it.
        InternalError: If a promise of our own was broken.
    """
    check_place(out, (model, data))
    with whole_folder(out) as folder:
        return _run(model, data, spec, folder, Journal(on_progress), earlier, checkpoints)


def _run(
    model: Path,
    data: Path,
    spec: QuantizeSpec,
    folder: Path,
    journal: Journal,
    earlier: Path | None,
    checkpoints: Checkpoints | None,
) -> Report:
    with journal.timed("ingest"):
        journal.tell("ingest", 0, f"reading {model.name}")
        job = _prepared(model, data, spec)
        journal.tell("ingest", 1, f"{len(job.layers)} layers; onnxruntime and the executor agree")
    calibration, held_back = split_samples(job.samples, spec.held_back, spec.seed)
    judging, held_back = _for_the_band(held_back, spec)
    with journal.timed("rounding"):
        known = None
        if earlier is not None:
            check_reuse(earlier, job.layers, spec.scored_as)
            known = equalized_bits(earlier)
        scaled_for = known or expected_bits(job, spec.budget)
        job = equalize(job, calibration, spec, scaled_for, journal.tells("rounding"))
    calibration = job.shorten(calibration)
    seen, unseen = apart(calibration, spec)
    moments, rounded_tensors = KeptMoments(), _rounded_tensors(job, spec)
    watches = RangeWatch(rounded_tensors), RangeWatch(rounded_tensors)
    with journal.timed("rounding"):
        rounded = find_rounded(checkpoints)
        if rounded is None:
            rounded = round_candidates(job, seen, spec, journal.tells("rounding"), moments, watches[0])
            keep_rounded(checkpoints, rounded)
        folds = further_folds(seen, unseen, rounded, spec)
        further = [
            (
                scored_on,
                round_candidates(job, given, spec, fold_of(journal.tells("rounding"), number, len(folds))),
            )
            for number, (given, scored_on) in enumerate(folds)
        ]
        journal.tell("rounding", 1, f"{len(rounded)} layers rounded")
    with journal.timed("sensitivity"):
        source, told = earlier, None if earlier is None else earlier.name
        if source is None and checkpoints is not None:
            source, told = checkpoints.find(SENSITIVITIES), "the last attempt"
        if source is not None:
            scored = reuse(job, unseen, spec, source)
            journal.tell("sensitivity", 1, f"taken from {told}")
        else:
            tells = journal.tells("sensitivity")
            measured = score(job, unseen, rounded, spec, tells, checkpoints, further)
            scored = measured.scaled_for(scaled_for)
            if checkpoints is not None:
                with checkpoints.keep(SENSITIVITIES) as kept:
                    scored.write(kept)
    scored = scored.with_outliers(rounded)
    job, scored = spare_unreached(job, scored, spec)
    densities = None
    if spec.spectrum:
        with journal.timed("sensitivity"):
            densities = estimate_densities(job, unseen, rounded, spec, journal.tells("sensitivity"))
    batches, activations = _batches(job, unseen, spec), None
    if spec.open_activations:
        with journal.timed("sensitivity"):
            activations = open_activations(job, seen, spec, journal.tells("sensitivity"))
            found = activations.scores(scored.objective, batches, journal.tells("sensitivity"))
            scored = scored.with_activations(found)
    with journal.timed("allocation"):
        costs = price(job, spec, calibration)
        problem = _problem(job, scored, costs, batches, spec)
        front = file_front(problem)
        program, rounding = (
            (activations.program, activations.rounding) if activations else (job.program, None)
        )
        # Without padding all tensors are those that the samples have when they are run for their ranges.
        whole = sum(batch.size for batch in batches) == unseen.count and job.padding is None
        watch = watches[1] if whole and program is job.program else None
        others = [(_batches(job, samples, spec), codes) for samples, codes in further]
        meter = PlanMeter(program, job.layers, scored.objective, batches, rounded, rounding, watch, others)
    maker = FileMaker(
        job,
        spec,
        folder,
        journal,
        calibration,
        problem,
        scored.objective,
        meter,
        rounded,
        (seen, unseen),
        moments,
        ActivationGrids(job, spec, journal, (seen, unseen), watches, batches),
        whole=seen is calibration,
        checkpoints=checkpoints,
    )
    limits, band, search = read_limits(spec.budget, costs), spec.budget.max_drop, None
    if band is None:
        made = maker.make(limits)
    else:
        judge = Judge(
            band,
            job.reference.path,
            judging,
            scored.objective,
            job.batch_size,
            spec.seed,
            confidence=spec.budget.confidence or CONFIDENCE,
            files=MOST_EVALUATIONS,
            literal=not job.target.runs_here,
        )
        made, search = find_in_band(maker, limits, judge)
    unmet = () if search is None or search.met else (search.reason,)
    with journal.timed("verification"):
        report = assess(
            job,
            spec,
            folder / MODEL,
            held_back,
            scored.objective,
            scored.table,
            front,
            made.choice,
            (*job.notes, *scored.warnings, *made.notes, *unmet),
            on_progress=journal.tells("verification"),
        )
    tried = {
        "trials": made.settled.trials,
        "refinement": made.settled.refinement,
        "band": search,
        "groups": costs.groups,
    }
    report = report.model_copy(update={"timings": journal.timings, **tried})
    journal.tell("report", 0, "writing the report")
    scored.write(folder)
    (folder / PARETO).write_text(front.model_dump_json(indent=1))
    (folder / COSTS).write_text(costs.model_dump_json(indent=1))
    if densities is not None:
        write_densities(model.name, densities, folder)
    write_report(report, scored.table, front, folder, densities)
    journal.tell("report", 1, "done")
    return report


def _prepared(model: Path, data: Path, spec: QuantizeSpec) -> Prepared:
    job = prepare(model, data, spec)
    budget = spec.budget
    if {budget.effective_bits, budget.bops, budget.latency, budget.peak_memory} != {None}:
        check_reach(budget, price(job, spec))
    return job


def _rounded_tensors(job: Prepared, spec: QuantizeSpec) -> tuple[str, ...]:
    """Tensors that a plan without float layers rounds to a grid."""
    bits = {name: min(choice.bits) for name, choice in job.candidates.items()}
    return place(job.model, job.layers, bits, spec.default_activation_bits, job.target, spec).points


def _for_the_band(held_back: Samples, spec: QuantizeSpec) -> tuple[Samples, Samples]:
    """Samples to search an accuracy band with, and others for the report."""
    if spec.budget.max_drop is None:
        return held_back, held_back
    runs = held_back.count // (held_back.batch or 1)
    if runs < 2:
        raise SamplesError(
            f"an accuracy band is searched with some of the held-back samples and verified with others, and held_back "
            f"{spec.held_back:g} leaves {held_back.count} in all.",
            remedy="Give more samples, or raise held_back.",
            where="held_back",
        )
    return split_samples(held_back, _VERIFYING_SHARE, spec.seed)


def _problem(
    job: Prepared, scored: Scored, costs: CostTable, batches: Sequence[Batch], spec: QuantizeSpec
) -> PlanProblem:
    measured, pairs = scored.answer.interactions, None
    if measured is not None:
        widths = tuple(
            tuple(bits for bits in job.candidates[name].bits if bits != FLOAT_BITS)
            for name in measured.layers
        )
        pairs = PairLosses(measured.layers, widths, measured.trusted_pairs)
    importance: dict[str, float] = {}
    if spec.allocation == "ompq":
        similarity = orm(job.program, job.layers, batches)
        importance = {
            layer.name: value
            for layer, value in zip(job.layers, ompq_importance(similarity).tolist(), strict=True)
        }
    return PlanProblem.of(scored.table, costs, allocation=spec.allocation, pairs=pairs, priority=importance)


def _batches(job: Prepared, samples: Samples, spec: QuantizeSpec) -> tuple[Batch, ...]:
    """Samples to measure whole plans on: those that scored the layers."""
    effort = plan_effort(job, samples.count, "output", fast=spec.effort == "fast")
    used = samples.take(np.arange(effort.samples))
    feeds = {name: torch.from_numpy(array).to(job.device) for name, array in used.inputs.items()}
    return split_batches(
        feeds,
        None if used.labels is None else torch.from_numpy(used.labels).to(job.device),
        sample_bytes=int(2 * activation_bytes(job.program, feeds, used.batch) / memory_share()),
        seed=spec.seed,
        device=job.device,
        fixed=used.batch,
        clusters=1,
        padding=job.padding,
    )
