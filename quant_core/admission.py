"""What a request is held against before anything is measured, and the samples for each purpose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quant_core.allocation.limits import check_reach
from quant_core.allocation.ties import read_ties
from quant_core.calibration import Samples, split_samples
from quant_core.errors import SamplesError
from quant_core.ingest.fusion_groups import find_fusion_groups
from quant_core.preparation import Prepared, prepare
from quant_core.preparation.pricing import price
from quant_core.scoring.question import check_loss
from quant_core.spec import QuantizeSpec

_VERIFYING_SHARE = 0.5
"""Share of the held-back samples that a search for an accuracy band does not see."""


@dataclass(frozen=True, eq=False)
class Admitted:
    """A job that may run.

    Attributes:
        job: The prepared job.
        calibration: Samples that decide.
        judging: Samples that files are judged on in a search for an accuracy band; else the same as `held_back`.
        held_back: Samples that the report is made with, and no stage before it sees.
    """

    job: Prepared
    calibration: Samples
    judging: Samples
    held_back: Samples


def admit(model: Path, data: Path, spec: QuantizeSpec) -> Admitted:
    """Prepare a job and check all that can be checked before it starts; nothing is written.

    Args:
        model: The float ONNX file.
        data: The sample file.
        spec: The request.

    Returns:
        The job and its samples.

    Raises:
        UserError: If the job could not run; names the file, layer or field and the remedy.
        SamplesError: If there are too few samples for what the request takes.
    """
    job = prepare(model, data, spec)
    budget = spec.budget
    if {budget.effective_bits, budget.bops, budget.latency, budget.peak_memory} != {None}:
        check_reach(budget, price(job, spec))
    if spec.ties:
        read_ties(spec.ties, job.layers, find_fusion_groups(job.model.graph, job.layers))
    check_loss(job, spec)
    try:
        calibration, held_back = split_samples(job.samples, spec.held_back, spec.seed)
    except SamplesError as error:
        raise SamplesError(error.message, remedy=error.remedy, where=str(data)) from error
    return Admitted(job, calibration, *_for_the_band(held_back, spec))


def _for_the_band(held_back: Samples, spec: QuantizeSpec) -> tuple[Samples, Samples]:
    """Samples to search an accuracy band with, and others for the report."""
    if spec.budget.max_drop is None:
        return held_back, held_back
    runs = held_back.count // held_back.unit
    if runs < 2:
        raise SamplesError(
            f"an accuracy band is searched with some of the held-back samples and verified with others, and held_back "
            f"{spec.held_back:g} leaves {held_back.count} in all.",
            remedy="Give more samples, or raise held_back.",
            where="held_back",
        )
    return split_samples(held_back, _VERIFYING_SHARE, spec.seed)
