"""Sensitivities for their own sake."""

from __future__ import annotations

from pathlib import Path

from quant_core.artifacts import COSTS, SENSITIVITY, whole_folder
from quant_core.calibration import split_samples
from quant_core.checkpoints import Checkpoints, find_rounded, keep_rounded
from quant_core.journal import Journal
from quant_core.preparation import prepare
from quant_core.preparation.equalizing import equalize, expected_bits
from quant_core.preparation.pricing import price
from quant_core.scoring.densities import write_densities
from quant_core.scoring.question import check_loss
from quant_core.scoring.rounded import apart, round_candidates, tellers
from quant_core.scoring.score import score
from quant_core.sensitivity.spectra import spectrum_table
from quant_core.spec import (
    AnalyzeSpec,
    ProgressCallback,
    QuantizeSpec,
    Request,
    SensitivityTable,
)
from quant_core.spec.budget import ANY_SIZE


def validate(model: Path, data: Path, spec: AnalyzeSpec) -> None:
    """Check a request as far as that is possible without starting it; nothing is written.

    Args:
        model: The float ONNX file.
        data: The sample file.
        spec: The request.

    Raises:
        UserError: If the job could not run; names the file, layer or field and the remedy.
    """
    check_loss(prepare(model, data, _as_quantization(spec)), spec)


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
    journal = Journal(on_progress)
    folder, name = (out.parent, out.name) if out.suffix == ".json" else (out, SENSITIVITY)
    with whole_folder(folder) as made:
        journal.tell("ingest", 0, f"reading {model.name}")
        whole = _as_quantization(spec)
        job = prepare(model, data, whole)
        check_loss(job, spec)
        journal.tell("ingest", 1, f"{len(job.layers)} layers; onnxruntime and the executor agree")
        calibration = job.samples
        if spec.held_back and calibration.count >= 2 * calibration.unit:
            calibration, _ = split_samples(calibration, spec.held_back, spec.seed)
        scaled_for = expected_bits(job, spec.budget)
        job = equalize(job, calibration, whole, scaled_for, journal.tells("rounding"))
        calibration = job.shorten(calibration)
        seen, unseen = apart(calibration, spec)
        rounded = find_rounded(checkpoints)
        if rounded is None:
            rounded = round_candidates(job, seen, spec, journal.tells("rounding"))
            keep_rounded(checkpoints, rounded)
        scored = score(
            job,
            tellers(calibration, unseen, spec),
            rounded,
            spec,
            journal.tells("sensitivity"),
            checkpoints,
        ).scaled_for(scaled_for)
        scored = scored.with_outliers(rounded)
        scored.write(made, name)
        (made / COSTS).write_text(price(job, whole, calibration).model_dump_json(indent=1))
        if scored.spectra:
            densities = spectrum_table(scored.objective.name, spec.seed, scored.spectra)
            write_densities(model.name, densities, made)
        journal.tell("report", 1, f"{scored.table.samples} samples, {scored.table.stopped}")
        return scored.table


def _as_quantization(spec: AnalyzeSpec) -> QuantizeSpec:
    shared = {name: getattr(spec, name) for name in Request.model_fields if name != "sensitivity"}
    return QuantizeSpec(budget=ANY_SIZE, **shared)
