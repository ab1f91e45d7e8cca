"""A program for batches beside one for single samples: made of the same weights, and compared with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir
import torch

from quant_core.errors import BitwrightError
from quant_core.executor.compiler import compile_model
from quant_core.executor.dtypes import to_numpy
from quant_core.executor.parity import distance
from quant_core.executor.program import Program

_TOLERANCE = 1e-4
"""Largest difference between a batch and its samples alone that is rounding, relative to the scale of each tensor."""


def compile_beside(model: ir.Model, program: Program) -> Program:
    """Compiles a rewritten copy of a model that has been compiled before, without a second copy of its weights.

    Args:
        model: The copy; its float32 initializers are pointed at the program's, which have the same names and values.
        program: The original, compiled in the types of its model.

    Returns:
        A program on the same device; on the CPU it shares the memory of the weights.
    """
    for name, weight in program.weights.items():
        value = model.graph.initializers.get(name)
        if value is not None and value.dtype == ir.DataType.FLOAT and weight.device.type == "cpu":
            value.const_value = ir.Tensor(weight.detach().numpy(), name=name)
    return compile_model(model, device=program.device)


def batch_difference(
    alone: Program,
    together: Program,
    feeds: Mapping[str, torch.Tensor],
    places: Mapping[str, tuple[int, int]],
    tensors: Collection[str],
) -> str | None:
    """Compares a program for batches with the original, which takes one sample a run.

    Args:
        alone: The original; its inputs have a first axis of 1.
        together: The program for batches.
        feeds: Graph input name -> samples along the first axis.
        places: Tensor name -> the axis that holds the batch, and how many groups of one entry a sample that axis has;
            tensors without one must be the same for all.
        tensors: Names to compare besides the graph outputs.

    Returns:
        What differs, for people to read; None where nothing does.
    """
    names = [name for name in dict.fromkeys([*tensors, *alone.outputs]) if name not in feeds]
    count = len(next(iter(feeds.values())))
    with torch.no_grad():
        single = [
            alone.evaluate({name: rows[i : i + 1] for name, rows in feeds.items()}, outputs=names)
            for i in range(count)
        ]
        try:
            batch = together.evaluate(feeds, outputs=names)
        except BitwrightError as error:
            return f"it does not run with {count} samples: {error}"
    for name in names:
        parts = [values[name] for values in single]
        if not all(isinstance(value, torch.Tensor) for value in (*parts, batch[name])):
            return f"{name!r} is no tensor"
        wanted = parts
        if name in places:
            axis, groups = places[name]
            grouped = [_grouped(part, axis, groups) for part in parts]
            if len({_beside(part, axis + 1) for part in grouped}) > 1:
                return f"{name!r} has a size that varies from sample to sample"
            wanted = [torch.cat(grouped, dim=axis + 1).flatten(axis, axis + 1)]
        furthest = max(distance(to_numpy(part), to_numpy(batch[name])) for part in wanted)
        if not furthest <= _TOLERANCE:
            return f"{name!r} differs by {furthest:.2g} of its scale from what each sample gives alone"
    return None


def _grouped(tensor: torch.Tensor, axis: int, groups: int) -> torch.Tensor:
    """Split an axis into groups and what each holds."""
    return tensor.reshape(
        *tensor.shape[:axis], groups, tensor.shape[axis] // groups, *tensor.shape[axis + 1 :]
    )


def _beside(tensor: torch.Tensor, axis: int) -> tuple[int, ...]:
    return tuple(tensor.shape[:axis] + tensor.shape[axis + 1 :])
