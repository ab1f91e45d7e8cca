"""Every method by name: the estimator behind it, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from quant_core.ingest.layer import Layer
from quant_core.sensitivity.batches import MEMORY
from quant_core.sensitivity.curvature.traces import TraceEstimate
from quant_core.sensitivity.cut import Cut
from quant_core.sensitivity.estimators.activations import ActivationTraces, activation_traces
from quant_core.sensitivity.estimators.eigenvalues import EigenvalueEstimate, hawq
from quant_core.sensitivity.estimators.fisher import fisher
from quant_core.sensitivity.estimators.gauss_newton import gauss_newton, gauss_newton_exact
from quant_core.sensitivity.estimators.gnb import gnb
from quant_core.sensitivity.estimators.hutch_pp import hutch_plus_plus
from quant_core.sensitivity.estimators.hutchinson import hawq_v2
from quant_core.sensitivity.estimators.interaction import interactions
from quant_core.sensitivity.estimators.kfac import KroneckerFactors, kfac
from quant_core.sensitivity.estimators.orthogonality import orm
from quant_core.sensitivity.estimators.output import LossIncrease, output
from quant_core.sensitivity.estimators.path_integral import pqi
from quant_core.sensitivity.findings import (
    Findings,
    join_activations,
    join_findings,
    join_increases,
    join_traces,
)
from quant_core.sensitivity.question import Question
from quant_core.sensitivity.running.assignment import Assignment
from quant_core.sensitivity.running.memory import with_less_at_a_time

FIRST, SECOND = 2, 6
"""How many times its activations a batch takes with the graph of first and of second derivatives, roughly."""

_EXACT_PROBES = 200
"""About as many probes tell a layer's share to 5 %."""

_SWEEP_CLUSTERS = 4
"""Batches of methods that sweep over all samples in every step; their spread gives standard errors."""

_FEWEST_PRODUCTS, _MOST_PRODUCTS = 6, 30
"""Bounds on the sweeps of Hutch++."""

_COMPARED = 32
"""Samples on which layers' outputs are compared; OMPQ takes as many."""

_SWEEPS = 6
"""Most passes over the samples for traces that only explain, and do not decide."""

_FEWEST_TOLD, _SHARE_TOLD = 3, 4
"""Fewest batches for them, and one in how many of all, where time is dear."""


def traces(
    question: Question, estimator: Callable[..., TraceEstimate], copies: int, **more: Any
) -> TraceEstimate:
    """Estimate traces, with smaller batches or some layers at a time where memory runs out.

    Args:
        question: What is asked.
        estimator: The estimator.
        copies: How many times its activations a batch takes, roughly.
        more: Arguments of this estimator alone.

    Returns:
        Traces of all layers.
    """
    given = {"seed": question.seed, "tolerance": question.tolerance, "max_probes": question.max_probes}
    return question.estimate(estimator, question.cut(copies), join_traces, **(given | more))


def explaining_traces(question: Question) -> TraceEstimate:
    """Estimate traces beside a method that gives none, with a few passes over the samples.

    Args:
        question: What is asked.

    Returns:
        Gauss-Newton traces.
    """
    batches = -(-question.samples // question.cut(FIRST).size)
    wanted = max(_FEWEST_TOLD, batches // _SHARE_TOLD) if question.thrifty else _SWEEPS * batches
    probes = min(question.max_probes, wanted)
    return traces(replace(question, max_probes=probes), gauss_newton, FIRST)


def explaining_activations(question: Question) -> ActivationTraces:
    """Estimate traces in the inputs of all layers, with a few passes over the samples.

    Args:
        question: What is asked.

    Returns:
        Gauss-Newton traces of tensors.
    """
    cut = question.cut(SECOND)
    return question.estimate(
        activation_traces,
        cut,
        join_activations,
        seed=question.seed,
        tolerance=question.tolerance,
        max_probes=min(question.max_probes, _SWEEPS * -(-question.samples // cut.size)),
    )


def _by_trace(estimator: Callable[..., TraceEstimate], copies: int, question: Question) -> Findings:
    return _trace_scores(question, traces(question, estimator, copies))


def _gauss_newton(question: Question) -> Findings:
    exact = _exact_cut(question)
    if exact is None:
        return _by_trace(gauss_newton, FIRST, question)
    return _trace_scores(question, question.estimate(gauss_newton_exact, exact, join_traces))


def _exact_cut(question: Question) -> Cut | None:
    """Batches for the exact traces if those take fewer passes than probes would, else None."""
    cut = question.cut(FIRST)
    one = question.fixed_batch or 1
    few = {name: tensor[:one] for name, tensor in question.feeds.items()}
    with torch.no_grad():
        values = question.program.evaluate(few, outputs=question.objective.tensors)
    outputs = sum(row[0].numel() for row in question.objective.rows(values, one))
    passes = question.samples * outputs * one
    if passes > min(question.max_probes, _EXACT_PROBES) * cut.size:
        return None
    return replace(cut, largest=1)


def _trace_scores(question: Question, found: TraceEstimate) -> Findings:
    per_weight = question.norms / np.array([layer.parameters for layer in question.layers])[:, None]
    return Findings(
        samples=found.samples,
        stopped=found.stopped,
        probes=found.probes,
        trace=found.trace,
        trace_stderr=found.stderr,
        score=found.trace[:, None] * per_weight,
        score_stderr=found.stderr[:, None] * per_weight,
    )


def _fisher(question: Question) -> Findings:
    labels = "model" if question.labels is None else "given"
    return _trace_scores(question, traces(question, fisher, FIRST, labels=labels))


def _kfac(question: Question) -> Findings:
    cut = question.cut(FIRST)
    sweeps = max(1, min(_SWEEPS, question.max_probes // -(-question.samples // cut.size)))
    options = {"seed": question.seed, "sweeps": sweeps}
    ask = question.alone()

    def attempt(cut: Cut, layers: Sequence[Layer]) -> Findings:
        parts = _groups(layers)
        found = [
            _kfac_scores(
                question,
                ask.part(i / len(parts), (i + 1) / len(parts)),
                Assignment(kfac, part, question.objective, cut, options),
            )
            for i, part in enumerate(parts)
        ]
        return join_findings(found)

    return with_less_at_a_time(attempt, cut, question.layers, join_findings)


def _kfac_scores(question: Question, ask: Question, assignment: Assignment) -> Findings:
    layers = assignment.layers
    factors: KroneckerFactors = ask.ask(assignment, on_progress=ask.on_progress)
    score = np.full((len(layers), question.norms.shape[1]), np.nan)
    for i, (layer, row) in enumerate(zip(layers, question.rounded(layers), strict=True)):
        weight = question.program.weights[layer.weight].detach()
        for k, rounded in enumerate(row):
            change = torch.from_numpy(rounded.dequantize()).to(weight) - weight
            score[i, k] = factors.loss_increase(i, change)
    return Findings(
        factors.samples,
        "all samples used",
        probes=factors.probes,
        trace=factors.trace,
        trace_stderr=factors.stderr,
        score=score,
    )


def _groups(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Cut the layers where their factors together would take more than a batch may."""
    groups: list[list[Layer]] = []
    held = 0
    for layer in layers:
        sides = (layer.shape[0], layer.parameters // max(1, layer.shape[0]))
        size = 4 * sum(side**2 for side in sides)
        if not groups or held + size > MEMORY:
            groups.append([])
            held = 0
        groups[-1].append(layer)
        held += size
    return groups


def _hutch_plus_plus(question: Question) -> Findings:
    cut = question.cut(SECOND, clusters=_SWEEP_CLUSTERS)
    sweeps = question.max_probes // -(-question.samples // cut.size)
    found = question.alone().estimate(
        hutch_plus_plus,
        cut,
        join_traces,
        seed=question.seed,
        products=min(_MOST_PRODUCTS, max(_FEWEST_PRODUCTS, sweeps)),
        seconds=question.seconds,
    )
    return _trace_scores(question, found)


def _hawq(question: Question) -> Findings:
    cut = question.cut(SECOND, clusters=_SWEEP_CLUSTERS)
    found = question.alone().estimate(
        hawq, cut, _join_eigenvalues, seed=question.seed, seconds=question.seconds
    )
    return Findings(
        samples=found.samples,
        stopped=found.stopped,
        probes=found.products,
        eigenvalue=found.eigenvalue,
        score=found.eigenvalue[:, None] * question.norms,
        score_stderr=found.stderr[:, None] * question.norms,
    )


def _join_eigenvalues(parts: Sequence[EigenvalueEstimate]) -> EigenvalueEstimate:
    return EigenvalueEstimate(
        eigenvalue=np.concatenate([part.eigenvalue for part in parts]),
        residual=np.concatenate([part.residual for part in parts]),
        stderr=np.concatenate([part.stderr for part in parts]),
        products=sum(part.products for part in parts),
        samples=max(part.samples for part in parts),
        stopped="; ".join(dict.fromkeys(part.stopped for part in parts)),
    )


def _output(question: Question) -> Findings:
    found = question.estimate(
        output,
        question.cut(FIRST, clusters=1),
        join_increases,
        rounded=True,
        in_pieces=True,
        tolerance=question.score_tolerance,
        foretell=question.thrifty,
        divisible=question.fixed_batch is None,
    )
    return _increase(found)


def _interaction(question: Question) -> Findings:
    found = question.estimate(
        interactions,
        question.cut(FIRST, clusters=1),
        rounded=True,
        tolerance=question.score_tolerance,
        seed=question.seed,
    )
    return replace(_increase(found.measured), interactions=found)


def _pqi(question: Question) -> Findings:
    cut = question.cut(2 * FIRST, clusters=_SWEEP_CLUSTERS)
    return _increase(question.estimate(pqi, cut, join_increases, rounded=True, in_pieces=True))


def _orm(question: Question) -> Findings:
    cut = question.cut(FIRST, clusters=1)
    program = question.program

    def attempt(cut: Cut, layers: Sequence[Layer]) -> Findings:
        (batch, *_) = replace(cut, largest=min(cut.largest, _COMPARED)).batches(
            question.feeds, question.labels, program.device
        )
        return Findings(batch.size, "one batch", similarity=orm(program, layers, [batch]))

    return with_less_at_a_time(attempt, cut, question.layers)


def _increase(found: LossIncrease) -> Findings:
    return Findings(
        samples=found.samples, stopped=found.stopped, score=found.increase, score_stderr=found.stderr
    )


METHODS: Mapping[str, Callable[[Question], Findings]] = {
    "output": _output,
    "interaction": _interaction,
    "gauss_newton": _gauss_newton,
    "hawq_v2": partial(_by_trace, hawq_v2, SECOND),
    "hutch++": _hutch_plus_plus,
    "hawq": _hawq,
    "gnb": partial(_by_trace, gnb, FIRST),
    "fisher": _fisher,
    "kfac": _kfac,
    "pqi": _pqi,
    "orm": _orm,
}
"""Method name -> what answers a question with it."""

MEASURED = frozenset({"output", "interaction", "pqi"})
"""Methods that measure the loss and give no traces; those of Gauss-Newton explain their scores."""

BLIND_TO_CODES = frozenset({"gauss_newton", "hawq_v2", "hutch++", "hawq", "gnb", "fisher", "orm"})
"""Methods that know of a rounding no more than its squared norm, so that it does not matter which samples it saw."""
