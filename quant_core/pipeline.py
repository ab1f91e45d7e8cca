"""The stages of one job in order; nothing else knows the order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quant_core.admission import admit
from quant_core.allocation.limits import read_limits
from quant_core.allocation.plan_bits import Limits, file_front
from quant_core.allocation.plan_problem import PairLosses, PlanProblem
from quant_core.artifacts import COSTS, PARETO, check_place, whole_folder
from quant_core.calibration import RangeWatch, Samples
from quant_core.checkpoints import SENSITIVITIES, Checkpoints, find_rounded, keep_rounded
from quant_core.export import place
from quant_core.file_making.activation_grids import ActivationGrids
from quant_core.file_making.assessment import assess
from quant_core.file_making.band_search import find_in_band
from quant_core.file_making.file_maker import FileMaker, Made
from quant_core.file_making.final_codes import FinalCodes
from quant_core.file_making.open_activations import OpenActivations, open_activations
from quant_core.file_making.whole_runs import without_run_axis
from quant_core.journal import Journal
from quant_core.preparation import Prepared
from quant_core.preparation.equalizing import equalize, expected_bits
from quant_core.preparation.pricing import price
from quant_core.quantizers.moments.calibration_moments import KeptMoments
from quant_core.quantizers.rounding.round_weights import RoundedWeights
from quant_core.report import write_report
from quant_core.scoring.densities import estimate_densities, write_densities
from quant_core.scoring.effort import plan_effort
from quant_core.scoring.rounded import apart, further_folds, round_candidates, tellers
from quant_core.scoring.score import fold_of, reuse, score
from quant_core.scoring.scored import Scored, check_reuse, equalized_bits, read_tables
from quant_core.scoring.unreached import spare_unreached
from quant_core.sensitivity import Batch, activation_bytes, split_batches
from quant_core.sensitivity.estimators.orthogonality import ompq_importance, orm
from quant_core.spec import (
    BandSearch,
    CostTable,
    ParetoFront,
    ProgressCallback,
    QuantizeSpec,
    Report,
)
from quant_core.spec.budget import CONFIDENCE
from quant_core.spec.memory_share import memory_share
from quant_core.spec.spectrum import SpectrumTable
from quant_core.spec.taking_over import taking_over
from quant_core.trials import MOST_EVALUATIONS, Judge, PlanMeter


def validate(model: Path, data: Path, spec: QuantizeSpec) -> None:
    """Check a request as far as that is possible without starting it; nothing is written.

    Args:
        model: The float ONNX file.
        data: The sample file.
        spec: The request.

    Raises:
        UserError: If the job could not run; names the file, layer or field and the remedy.
    """
    admit(model, data, spec)


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
    if earlier is not None:
        spec = taking_over(spec, read_tables(earlier)[0])
    with whole_folder(out) as folder:
        return _Attempt(spec, folder, Journal(on_progress), earlier, checkpoints).run(model, data)


@dataclass(frozen=True, eq=False)
class _Codes:
    """Codes of every layer at every width, and what was seen while they were found.

    Attributes:
        calibration: All samples that decide.
        rounded: Layer name -> width -> codes.
        seen: The samples that they were found with.
        unseen: Those that measure plans of them.
        tellers: Those that score them.
        further: Others to score on, each with codes that have not seen them.
        moments: Input moments over `seen`, as far as they are held.
        watches: Ranges of activations over `seen`, and over `unseen` once plans are measured there.
    """

    calibration: Samples
    rounded: RoundedWeights
    seen: Samples
    unseen: Samples
    tellers: Samples
    further: list[tuple[Samples, RoundedWeights]]
    moments: KeptMoments
    watches: tuple[RangeWatch, RangeWatch]


@dataclass(frozen=True, eq=False)
class _Attempt:
    """One attempt at a job."""

    spec: QuantizeSpec
    folder: Path
    journal: Journal
    earlier: Path | None
    checkpoints: Checkpoints | None

    def run(self, model: Path, data: Path) -> Report:
        spec, journal = self.spec, self.journal
        with journal.timed("ingest"):
            journal.tell("ingest", 0, f"reading {model.name}")
            given = admit(model, data, spec)
            journal.tell("ingest", 1, f"{len(given.job.layers)} layers; onnxruntime and the executor agree")
        job, scaled_for = self._equalize(given.job, given.calibration)
        calibration = job.shorten(given.calibration)
        codes = self._round(job, calibration)
        scored = self._score(job, codes, scaled_for).with_outliers(codes.rounded)
        job, scored = spare_unreached(job, scored, spec)
        densities = self._estimate_densities(job, codes)
        batches = _batches(job, codes.unseen, spec)
        activations, scored = self._open_activations(job, codes, scored, batches)
        with journal.timed("allocation"):
            costs = price(job, spec, calibration)
            problem = _problem(job, scored, costs, batches, spec)
            front = file_front(problem)
            meter = self._meter(job, codes, scored, batches, activations)
        maker = self._maker(job, codes, scored, batches, problem, meter)
        made, search = self._make(maker, read_limits(spec.budget, costs), given.judging)
        report = self._assess(job, given.held_back, scored, maker.path, made)
        unmet = () if search is None or search.met else (search.reason,)
        way = {
            "pareto": tuple(point.model_copy(update={"bits": ()}) for point in front.points),
            "trials": made.settled.trials,
            "refinement": made.settled.refinement,
            "band": search,
            "groups": costs.groups,
            "warnings": (*job.notes, *scored.warnings, *made.notes, *unmet, *report.warnings),
            "timings": journal.timings,
        }
        report = report.model_copy(update=way)
        self._write(model, report, scored, front, costs, densities)
        return report

    def _equalize(self, job: Prepared, calibration: Samples) -> tuple[Prepared, float]:
        """The job with scaled channels, and the bits that they were scaled for."""
        with self.journal.timed("rounding"):
            known = None
            if self.earlier is not None:
                check_reuse(self.earlier, job, self.spec.scored_as)
                known = equalized_bits(self.earlier)
            bits = known or expected_bits(job, self.spec.budget)
            return equalize(job, calibration, self.spec, bits, self.journal.tells("rounding")), bits

    def _round(self, job: Prepared, calibration: Samples) -> _Codes:
        spec, tells = self.spec, self.journal.tells("rounding")
        seen, unseen = apart(calibration, spec)
        moments, rounded_tensors = KeptMoments(), _rounded_tensors(job, spec)
        watches = RangeWatch(rounded_tensors), RangeWatch(rounded_tensors)
        with self.journal.timed("rounding"):
            rounded = find_rounded(self.checkpoints)
            if rounded is None:
                rounded = round_candidates(job, seen, spec, tells, moments, watches[0])
                keep_rounded(self.checkpoints, rounded)
            folds = further_folds(seen, unseen, rounded, spec)
            further = [
                (scored_on, round_candidates(job, given, spec, fold_of(tells, number, len(folds))))
                for number, (given, scored_on) in enumerate(folds)
            ]
            tells(1, f"{len(rounded)} layers rounded")
        scoring = tellers(calibration, unseen, spec)
        return _Codes(calibration, rounded, seen, unseen, scoring, further, moments, watches)

    def _score(self, job: Prepared, codes: _Codes, scaled_for: float) -> Scored:
        with self.journal.timed("sensitivity"):
            tells = self.journal.tells("sensitivity")
            source, told = self.earlier, None if self.earlier is None else self.earlier.name
            if source is None and self.checkpoints is not None:
                source, told = self.checkpoints.find(SENSITIVITIES), "the last attempt"
            if source is not None:
                scored = reuse(job, codes.tellers, self.spec, source)
                tells(1, f"taken from {told}")
                return scored
            measured = score(
                job, codes.tellers, codes.rounded, self.spec, tells, self.checkpoints, codes.further
            )
            scored = measured.scaled_for(scaled_for)
            if self.checkpoints is not None:
                with self.checkpoints.keep(SENSITIVITIES) as kept:
                    scored.write(kept)
            return scored

    def _estimate_densities(self, job: Prepared, codes: _Codes) -> SpectrumTable | None:
        if not self.spec.spectrum:
            return None
        with self.journal.timed("sensitivity"):
            tells = self.journal.tells("sensitivity")
            return estimate_densities(job, codes.unseen, codes.rounded, self.spec, tells)

    def _open_activations(
        self, job: Prepared, codes: _Codes, scored: Scored, batches: Sequence[Batch]
    ) -> tuple[OpenActivations | None, Scored]:
        """What simulates any bits of activations, where those are open, and the sensitivities with theirs."""
        if not self.spec.open_activations:
            return None, scored
        with self.journal.timed("sensitivity"):
            tells = self.journal.tells("sensitivity")
            activations = open_activations(job, codes.seen, self.spec, tells)
            found = activations.scores(scored.objective, batches, tells)
            return activations, scored.with_activations(found)

    def _meter(
        self,
        job: Prepared,
        codes: _Codes,
        scored: Scored,
        batches: Sequence[Batch],
        activations: OpenActivations | None,
    ) -> PlanMeter:
        program, rounding = (
            (activations.program, activations.rounding) if activations else (job.program, None)
        )
        # Without padding all tensors are those that the samples have when they are run for their ranges.
        whole = sum(batch.size for batch in batches) == codes.unseen.count and job.padding is None
        watch = codes.watches[1] if whole and program is job.program else None
        others = [(_batches(job, samples, self.spec), rounded) for samples, rounded in codes.further]
        return PlanMeter(
            program, job.layers, scored.objective, batches, codes.rounded, rounding, watch, others
        )

    def _maker(
        self,
        job: Prepared,
        codes: _Codes,
        scored: Scored,
        batches: Sequence[Batch],
        problem: PlanProblem,
        meter: PlanMeter,
    ) -> FileMaker:
        """What makes files of this job."""
        spec, journal, objective = self.spec, self.journal, scored.objective
        parts, whole = (codes.seen, codes.unseen), codes.seen is codes.calibration
        final_codes = FinalCodes(
            job,
            spec,
            journal,
            objective,
            codes.calibration,
            parts,
            codes.rounded,
            codes.moments,
            whole=whole,
            checkpoints=self.checkpoints,
        )
        largest = max(batch.size for batch in batches)
        grids = ActivationGrids(job, spec, journal, parts, codes.watches, largest)
        return FileMaker(job, spec, self.folder, journal, problem, objective, meter, final_codes, grids)

    def _make(self, maker: FileMaker, limits: Limits, judging: Samples) -> tuple[Made, BandSearch | None]:
        job, band = maker.job, self.spec.budget.max_drop
        if band is None:
            return maker.make(limits), None
        judge = Judge(
            band,
            job.reference.path,
            judging,
            maker.objective,
            job.batch_size,
            self.spec.seed,
            confidence=self.spec.budget.confidence or CONFIDENCE,
            files=MOST_EVALUATIONS,
            literal=not job.target.runs_here,
        )
        return find_in_band(maker, limits, judge)

    def _assess(self, job: Prepared, held_back: Samples, scored: Scored, path: Path, made: Made) -> Report:
        """The report of the file that is handed out, as the user's model is read and answers."""
        with self.journal.timed("verification"):
            tells = self.journal.tells("verification")
            report = assess(job, self.spec, path, held_back, scored, made.choice, on_progress=tells)
        if job.source.whole_runs:
            report = without_run_axis(path, report)
        return report if job.scores is None else job.scores.left_out(path, report)

    def _write(
        self,
        model: Path,
        report: Report,
        scored: Scored,
        front: ParetoFront,
        costs: CostTable,
        densities: SpectrumTable | None,
    ) -> None:
        self.journal.tell("report", 0, "writing the report")
        scored.write(self.folder)
        (self.folder / PARETO).write_text(front.model_dump_json(indent=1))
        (self.folder / COSTS).write_text(costs.model_dump_json(indent=1))
        if densities is not None:
            write_densities(model.name, densities, self.folder)
        write_report(report, scored.table, front, self.folder, densities)
        self.journal.tell("report", 1, "done")


def _rounded_tensors(job: Prepared, spec: QuantizeSpec) -> tuple[str, ...]:
    """Tensors that a plan without float layers rounds to a grid."""
    bits = {name: min(choice.bits) for name, choice in job.candidates.items()}
    return place(job.model, job.layers, bits, spec.default_activation_bits, job.target, spec).points


def _problem(
    job: Prepared, scored: Scored, costs: CostTable, batches: Sequence[Batch], spec: QuantizeSpec
) -> PlanProblem:
    measured, pairs = scored.answer.interactions, None
    if measured is not None:
        pairs = PairLosses.of(scored.table, measured.layers, measured.trusted_pairs)
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
    used = samples.first(effort.samples)
    feeds = used.feeds(job.program.device)
    return split_batches(
        feeds,
        used.classes(job.program.device),
        sample_bytes=int(2 * activation_bytes(job.program, feeds, used.batch) / memory_share()),
        seed=spec.seed,
        device=job.program.device,
        fixed=used.batch,
        clusters=1,
        padding=job.padding,
    )
