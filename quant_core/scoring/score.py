"""What each layer of a prepared job loses at each of its widths: measured, or taken up from an earlier job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quant_core.artifacts import INTERACTIONS
from quant_core.calibration import Samples
from quant_core.checkpoints import Checkpoints, probe_log
from quant_core.preparation import Prepared
from quant_core.quantizers.rounding.round_weights import RoundedWeights
from quant_core.scoring.cross_fitted import cross_fitted
from quant_core.scoring.question import asked, find_objective
from quant_core.scoring.scored import Scored, check_reuse, read_tables, refuse_other
from quant_core.sensitivity import Spectrum, missing_scores
from quant_core.sensitivity.question import Question
from quant_core.sensitivity.spectra import spectra
from quant_core.sensitivity.table import Answer, answer
from quant_core.spec import AnalyzeSpec, Request
from quant_core.spec.progress import Tell

_UNTOLD = (
    "The sensitivities that were taken over are of an earlier version and do not tell their weights or samples. If the "
    "model was trained since, or the samples are others, estimate them again."
)


def score(
    job: Prepared,
    samples: Samples,
    rounded: RoundedWeights,
    request: Request,
    tell: Tell,
    checkpoints: Checkpoints | None = None,
    further: Sequence[tuple[Samples, RoundedWeights]] = (),
) -> Scored:
    """Estimate what each layer loses at each of its candidate widths.

    Args:
        job: The prepared job.
        samples: Samples to score with.
        rounded: Every layer at each of its widths.
        request: What is asked.
        tell: Called with the fraction done and a message.
        checkpoints: What was measured by an attempt that was cut off, and where this one writes it down.
        further: Further samples, each with codes that have not seen them; scores are then means over all samples.

    Returns:
        The loss, the table, and warnings.
    """
    log = probe_log(checkpoints)
    if log is not None and log.known:
        tell(0.0, f"{log.known} measurements taken from the last attempt")
    folds = 1 + len(further)
    with asked(job, samples, rounded, request, fold_of(tell, 0, folds), log) as question:
        if isinstance(request, AnalyzeSpec):
            found, densities = _answer_all(question, request)
        else:
            found, densities = answer(question, request.sensitivity, request.scored_as), {}
    tables = [found.table]
    for number, (others, codes) in enumerate(further, 1):
        with asked(job, others, codes, request, fold_of(tell, number, folds), log) as another:
            asked_alike = replace(another, objective=question.objective)
            tables.append(answer(asked_alike, request.sensitivity, request.scored_as).table)
    belongs = {"weights": job.source.weights, "data": job.samples.digest}
    table = cross_fitted(tables).model_copy(update=belongs)
    found = replace(found, table=table)
    if found.interactions is not None or found.similarity is not None:
        found = found.referring_to(INTERACTIONS)
    bits = {name: choice.bits for name, choice in job.candidates.items()}
    return Scored(question.objective, found, missing_scores(found.table, bits), densities)


def fold_of(tell: Tell, number: int, folds: int) -> Tell:
    """Tell of one fold among several.

    Args:
        tell: Called with the fraction done of all and a message.
        number: Which it is.
        folds: How many there are.

    Returns:
        What takes the fraction done of this one.
    """
    if folds == 1:
        return tell
    return lambda done, message: tell((number + done) / folds, f"fold {number + 1} of {folds}: {message}")


def reuse(job: Prepared, samples: Samples, request: Request, folder: Path) -> Scored:
    """Take the sensitivities of an earlier job on the same model instead of estimating them again.

    Args:
        job: The prepared job.
        samples: Samples that would be scored with, of which a few tell the loss.
        request: What is asked.
        folder: The earlier job's folder.

    Returns:
        The loss, the table, and warnings.

    Raises:
        SpecError: If there is no table, or it is of another model, loss or rounding, or of other weights or samples.
    """
    check_reuse(folder, job, request.scored_as)
    table, pairs = read_tables(folder)
    objective = find_objective(job, samples, request)
    refuse_other([] if table.loss == objective.name else ["loss"], folder)
    bits = {name: choice.bits for name, choice in job.candidates.items()}
    warnings = (
        missing_scores(table, bits)
        if table.weights and table.data
        else (*missing_scores(table, bits), _UNTOLD)
    )
    return Scored(objective, Answer(table, pairs), warnings, {})


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
