"""Codes of a chosen plan tuned as asked for, biases last."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from quant_core.calibration import Samples
from quant_core.checkpoints import TUNING, Checkpoints, find_rounded, keep_rounded
from quant_core.file_making.choice import Choice, simulate
from quant_core.file_making.islands import Islands
from quant_core.preparation import Prepared
from quant_core.quantizers import ActivationGrid, QuantizedWeight, fake_quantize
from quant_core.quantizers.bias_correction.output_means import correct_means
from quant_core.quantizers.tuning.block_reconstruction import (
    BRECQ,
    QDROP,
    ReconstructedBlocks,
    reconstruct_blocks,
)
from quant_core.quantizers.tuning.block_walk import Probe
from quant_core.quantizers.tuning.reconstruction import reconstruct
from quant_core.sensitivity import Objective
from quant_core.spec import QuantizeSpec
from quant_core.spec.progress import Tell

_TOO_FEW = "Codes are those of GPTQ: to tune them takes two samples or more."
_METHODS = {"brecq": BRECQ, "qdrop": QDROP}

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Tuned:
    """Weights after tuning.

    Attributes:
        weights: Layer name -> codes and scales.
        told: What came of it, in short.
        notes: What the user should know.
    """

    weights: Mapping[str, QuantizedWeight]
    told: str
    notes: tuple[str, ...] = ()


def tune_plan(
    job: Prepared,
    spec: QuantizeSpec,
    objective: Objective,
    samples: Samples,
    choice: Choice,
    on_progress: Tell,
    checkpoints: Checkpoints | None = None,
) -> Tuned:
    """Tune the codes of a plan; bit-widths and bytes stay.

    Args:
        job: The prepared job.
        spec: The request; its rounding is one of those that tune.
        objective: The loss.
        samples: Calibration samples.
        choice: What was decided, with the codes to start from.
        on_progress: Called with the fraction done and a message; may raise to stop.
        checkpoints: Where blocks that are done are kept for another attempt, and found.

    Returns:
        The weights, as they were where tuning did not make them better.
    """
    weights = choice.weights
    if not weights:
        return Tuned(weights, "every layer stays in float")
    if spec.rounding in _METHODS:
        return _by_blocks(job, spec, objective, samples, weights, choice.grids, on_progress, checkpoints)
    tuned = reconstruct(
        job.network,
        weights,
        simulate(job.graph, job, choice),
        samples,
        objective.tensors,
        seed=spec.seed,
        on_progress=on_progress,
    )
    if math.isnan(tuned.before):
        return Tuned(weights, "too few samples", (_TOO_FEW,))
    errors = f"{tuned.before:.4g} to {tuned.after:.4g}"
    if tuned.better:
        return Tuned(tuned.weights, f"relative error of activations and outputs {errors}")
    kept = "Codes are those of GPTQ: reconstruction came no closer to the float network on samples kept apart"
    told = f"{kept} than chance would ({errors})."
    return Tuned(tuned.weights, "no better", (f"{told} More samples may help.",))


def correct_biases(
    job: Prepared,
    spec: QuantizeSpec,
    choice: Choice,
    samples: Samples,
    islands: Islands | None,
    on_progress: Tell,
) -> Mapping[str, QuantizedWeight]:
    """Have biases make up for what rounded activations add to means, where that helps.

    Args:
        job: The prepared job.
        spec: The request.
        choice: What was decided, with the final codes.
        samples: Calibration samples.
        islands: What rounded activations lose, where that was measured.
        on_progress: Called with the fraction done and a message; may raise to stop.

    Returns:
        Layer name -> codes, scales and bias; those of the choice where means are left alone.
    """
    if not spec.bias_correction or spec.by_value:
        return choice.weights
    if islands is not None and islands.harmless_beside(choice.plan.predicted_loss):
        return choice.weights
    forms, in_float = choice.placement.forms, {} if islands is None else islands.shares
    on_progress(0.95, "means of the layers' outputs")
    found = correct_means(
        job.network,
        job.graph,
        [layer for layer in job.layers if forms[layer.name] == "static" or layer.name in in_float],
        choice.weights,
        samples,
        lambda weights: simulate(job.graph, job, replace(choice, weights=weights)),
    )
    if found is None:
        return choice.weights
    on_progress(0.95, "biases make up for rounded activations")
    return found


def _by_blocks(
    job: Prepared,
    spec: QuantizeSpec,
    objective: Objective,
    samples: Samples,
    weights: Mapping[str, QuantizedWeight],
    grids: Mapping[str, ActivationGrid],
    on_progress: Tell,
    checkpoints: Checkpoints | None,
) -> Tuned:
    begun = _fingerprint(weights, grids)
    tuned = _find(checkpoints, weights, begun) or ReconstructedBlocks(weights, ())
    blocks = reconstruct_blocks(
        job.network,
        tuned,
        samples,
        _METHODS[spec.rounding],
        hooks={name: partial(fake_quantize, grid=grid) for name, grid in grids.items()},
        probe=Probe(partial(_probe, objective), objective.tensors),
        seed=spec.seed,
        on_progress=on_progress,
    )
    for tuned in blocks:
        _keep(checkpoints, tuned, begun)
    kept = sum(not after < before for before, after in tuned.errors)
    if not tuned.errors:
        return Tuned(weights, "too few samples", (_TOO_FEW,))
    told = f"{len(tuned.errors) - kept} of {len(tuned.errors)} blocks closer to the float network"
    note = f"Codes of {kept} of {len(tuned.errors)} blocks are those of GPTQ: on samples kept apart {spec.rounding}"
    note += " was no better."
    return Tuned(tuned.weights, told, (note,) if kept else ())


def _fingerprint(weights: Mapping[str, QuantizedWeight], grids: Mapping[str, ActivationGrid]) -> str:
    """What tuning starts from: a job makes several files, which may differ in nothing but what is rounded beside."""
    digest = hashlib.sha256(repr(sorted(grids.items())).encode())
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.bits} {weight.trellis}".encode())
        bias = None if weight.bias is None else weight.bias.values
        narrow = None if weight.narrow is None else weight.narrow.channels
        for part in (weight.codes, weight.scale, weight.zero_point, bias, narrow):
            digest.update(b"" if part is None else part.tobytes())
    return digest.hexdigest()


def _keep(checkpoints: Checkpoints | None, done: ReconstructedBlocks, begun: str) -> None:
    rounded = {name: {weight.bits: weight} for name, weight in done.weights.items()}
    keep_rounded(checkpoints, rounded, TUNING, {"errors": done.errors, "begun": begun})


def _find(
    checkpoints: Checkpoints | None, weights: Mapping[str, QuantizedWeight], begun: str
) -> ReconstructedBlocks | None:
    """Take up the blocks that an earlier attempt at this very file has done."""
    found = find_rounded(checkpoints, TUNING)
    if found is None or checkpoints is None:
        return None
    told = checkpoints.told(TUNING)
    if told.get("begun") != begun:
        return None
    return ReconstructedBlocks(
        {name: row[weights[name].bits] for name, row in found.items()},
        tuple((before, after) for before, after in told["errors"]),
    )


def _probe(objective: Objective, values: Tensors, batch: Samples, chance: torch.Generator) -> torch.Tensor:
    """`sum z . (S r)` with random signs r and `S S^T` the loss's Hessian in the outputs z."""
    total = torch.zeros((), device=chance.device)
    for term, rows in zip(objective.terms, objective.rows(values, batch.count), strict=True):
        draw = torch.randint(2, rows.shape, generator=chance, device=chance.device)
        root = term.root(rows.detach(), 2.0 * draw.to(rows) - 1)
        total = total + (rows * root).sum()
    return total
