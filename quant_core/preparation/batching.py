"""Run many samples at once where the graph fixes the batch at 1, if that is shown to change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch

from quant_core.calibration import Samples
from quant_core.executor import Program, batch_difference, compile_beside
from quant_core.ingest import Layer
from quant_core.ingest.batch import BatchBoundError, free_batch

_TRIED_TOGETHER = 3


@dataclass(frozen=True, eq=False)
class Batching:
    """How samples are run.

    Attributes:
        model: The graph to analyse with: the normalised model, or its copy for batches.
        program: That graph, compiled.
        samples: The samples; their `batch` is what that program demands.
        notes: What the user should know.
    """

    model: ir.Model
    program: Program
    samples: Samples
    notes: tuple[str, ...] = ()


def free_samples(
    model: ir.Model, program: Program, layers: tuple[Layer, ...], samples: Samples, affordable: int
) -> Batching:
    """Give a program that takes any number of samples, where the model takes one and allows it.

    A rewritten copy is accepted if it gives a few samples together, in all graph outputs and in all tensors that
    layers read or write, what the original gives each of them alone.

    Args:
        model: The normalised model; left as it is.
        program: The model, compiled.
        layers: Its layers.
        samples: The user's samples.
        affordable: Samples per run that fit in memory.

    Returns:
        The program for batches, or what was given, with a note for the report where the graph fixes a batch of 1.
    """
    if samples.batch != 1 or samples.count < 2:
        return Batching(model, program, samples)
    tried = np.linspace(0, samples.count - 1, min(samples.count, _TRIED_TOGETHER)).astype(int)
    feeds = samples.take(tried).feeds(program.device)
    try:
        freed, together = _freed(model, program, layers, feeds)
    except BatchBoundError as error:
        reason = str(error).rstrip(".")
        note = f"the graph fixes the batch at 1 and was run sample by sample, which is slow: {reason}."
        return Batching(model, program, samples, (note,))
    note = f"the graph fixes the batch at 1; it was analysed in batches of up to {affordable} samples."
    return Batching(freed, together, replace(samples, batch=None), (note,))


def _freed(
    model: ir.Model, program: Program, layers: tuple[Layer, ...], feeds: Mapping[str, torch.Tensor]
) -> tuple[ir.Model, Program]:
    values = program.every_tensor({name: rows[:1] for name, rows in feeds.items()})
    free = free_batch(model, {name: tuple(value.shape) for name, value in values.items()})
    together = compile_beside(free.model, program)
    tensors = [name for layer in layers for name in (*layer.inputs, *layer.outputs)]
    difference = batch_difference(program, together, feeds, free.places, tensors)
    if difference is not None:
        raise BatchBoundError(difference)
    return free.model, together
