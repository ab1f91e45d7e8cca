"""What the estimators are asked about a prepared job, and by which loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from quant_core.calibration import Samples
from quant_core.errors import SamplesError, SpecError
from quant_core.preparation import Prepared
from quant_core.quantizers.rounding.round_weights import RoundedWeights
from quant_core.scoring.effort import Effort, plan_effort
from quant_core.sensitivity import Objective, choose_loss, find_sample_axes
from quant_core.sensitivity.question import Question
from quant_core.sensitivity.running.assignment import Crew
from quant_core.sensitivity.running.probe_log import ProbeLog
from quant_core.sensitivity.running.workers import OneThread, Workers
from quant_core.spec import AnalyzeSpec, Request
from quant_core.spec.progress import Tell

_ENOUGH = 8  # of which a quarter is held back and two thirds of the others round
_TELLING = 4
"""Samples that tell the loss."""


@contextmanager
def asked(
    job: Prepared,
    samples: Samples,
    rounded: RoundedWeights,
    request: Request,
    tell: Tell,
    log: ProbeLog | None = None,
) -> Iterator[Question]:
    """Put the question to the estimators, while those who share the work are there.

    Args:
        job: The prepared job.
        samples: Samples to score with; as many are used as the effort allows.
        rounded: Every layer at each of its widths.
        request: What is asked.
        tell: Called with the fraction done and a message.
        log: What was measured before, and where this is written down.

    Yields:
        The question.
    """
    effort = _limits(job, samples, request)
    samples = samples.first(effort.samples)
    feeds, labels = samples.feeds(job.program.device), samples.classes(job.program.device)
    objective = find_objective(job, samples, request)
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
            # To measure every width on few samples gives a plan more chance to follow, not a better one.
            thrifty=not isinstance(request, AnalyzeSpec) or request.effort != "best",
            seconds=request.seconds if isinstance(request, AnalyzeSpec) else None,
            crew=crew,
            log=log,
            on_progress=tell,
        )


def _limits(job: Prepared, samples: Samples, request: Request) -> Effort:
    effort = plan_effort(job, samples.count, request.sensitivity, fast=request.effort == "fast")
    if not isinstance(request, AnalyzeSpec):
        return effort
    return Effort(samples=request.samples or effort.samples, probes=request.probes or effort.probes)


def check_loss(job: Prepared, request: Request) -> None:
    """Refuse a loss that the outputs do not bear, before anything is rounded for it.

    Args:
        job: The prepared job.
        request: What is asked.
    """
    if request.loss != "auto" or request.loss_weights:
        find_objective(job, job.samples, request)


def find_objective(job: Prepared, samples: Samples, request: Request) -> Objective:
    """Choose the loss by what the first samples give.

    Args:
        job: The prepared job.
        samples: The samples.
        request: What is asked.

    Returns:
        The loss.

    Raises:
        SamplesError: If no output keeps an axis that counts samples, where there is only one to score with.
    """
    few = samples.batch or min(samples.count, _TELLING)
    samples = samples.first(few)
    first = samples.feeds(job.program.device, fast=True)
    with torch.no_grad():
        outputs = job.program.evaluate(first)
    axes = find_sample_axes(job.program, first, outputs, samples.batch)
    if few == 1 and samples.batch is None and all(axis is None for axis in axes.values()):
        # Of one sample these models leave a scalar; of two they may well leave a value each.
        raise SamplesError(
            "one sample is left to score with, and for one sample alone no output has an axis that counts samples.",
            remedy=f"Give {_ENOUGH} samples or more.",
            where="data",
        )
    labels = samples.classes(job.program.device)
    return choose_loss(job.model, outputs, few, axes, labels, request.loss, request.loss_weights)


def _crew(
    job: Prepared, feeds: Mapping[str, torch.Tensor], labels: torch.Tensor | None, request: Request
) -> AbstractContextManager[Crew | None]:
    if job.program.device.type == "cpu":
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
