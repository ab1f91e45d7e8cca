"""Whether samples are filled up to one length, and whether a model ignores what fills them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import torch

from quant_core.calibration import Samples
from quant_core.calibration.padding import Array, Filled, Padding
from quant_core.errors import ModelError
from quant_core.executor import Program
from quant_core.executor.dtypes import to_numpy
from quant_core.executor.parity import distance

_TRIED = 3
_SAME = 1e-4
"""Largest difference of an output, relative to its scale: what is not padding changes it by far more."""


def find_padding(model: ir.Model, program: Program, samples: Samples) -> Padding | None:
    """Find an axis that the samples do not fill, whose length is free and whose end no output depends on.

    All inputs with a free dimension of one name, which is not the batch, are looked at together: texts and their masks.
    What all samples hold at the end is taken for what fills them. A shortest, a longest and a sample between them are
    run as they are and cut to their own length; every output must keep its shape and its values.

    Args:
        model: The normalised model.
        program: The model, compiled.
        samples: The user's samples.

    Returns:
        The axis; None where there is none.
    """
    if samples.batch is not None:
        return None
    named: dict[str, dict[str, int]] = defaultdict(dict)
    for value in model.graph.inputs:
        for axis, size in enumerate(value.shape or ()):
            if axis and isinstance(size, ir.SymbolicDim) and size.value and value.name in samples.inputs:
                named[size.value][str(value.name)] = axis
    for axes in named.values():
        arrays = {name: samples.inputs[name] for name in axes}
        (whole, *others) = {arrays[name].shape[axis] for name, axis in axes.items()}
        if others or not all(array.size and array.dtype.kind in "biuf" for array in arrays.values()):
            continue
        padding = Padding(tuple(Filled(name, axis, _end(arrays[name], axis)) for name, axis in axes.items()))
        lengths = padding.lengths(arrays)
        if lengths.max() < whole and _is_ignored(program, samples, padding, lengths):
            return padding
    return None


def _end(array: Array, axis: int) -> float:
    """The first value at the end of an axis: what fills it, if anything does."""
    value: float = array.take(-1, axis).reshape(-1)[0].item()
    return value


def _is_ignored(program: Program, samples: Samples, padding: Padding, lengths: Array) -> bool:
    order = np.argsort(lengths, kind="stable")
    for place in np.linspace(0, len(order) - 1, _TRIED).astype(int):
        one = samples.take(order[place : place + 1])
        expected = _outputs(program, one)
        try:
            found = _outputs(program, replace(one, padding=padding).shortened())
        except ModelError:  # a node that only takes the full length
            return False
        if any(not distance(expected[name], found[name]) <= _SAME for name in expected):
            return False
    return True


def _outputs(program: Program, samples: Samples) -> dict[str, Array]:
    with torch.no_grad():
        found = program.evaluate(samples.feeds(program.device))
    return {name: to_numpy(value) for name, value in found.items()}
