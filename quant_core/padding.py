"""Padding that all samples share: what no output depends on need not be computed while a model is analysed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from quant_core.calibration import Samples
from quant_core.errors import ModelError
from quant_core.executor import Program
from quant_core.executor.dtypes import to_numpy
from quant_core.executor.parity import distance

_TRIED = 3
_SAME = 1e-4
"""Largest difference of an output, relative to its scale: what is not padding changes it by far more."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Padding:
    """An axis of the inputs whose end is filled up.

    Attributes:
        axes: Graph input -> the axis; inputs without it are not named.
    """

    axes: Mapping[str, int]

    def shorten(self, samples: Samples) -> Samples:
        """Cut off what is padding in all of these samples.

        Args:
            samples: Samples.

        Returns:
            The same samples, as long as the longest of them.
        """
        length = int(self.lengths(samples).max())
        inputs = dict(samples.inputs)
        for name, axis in self.axes.items():
            part = [slice(None)] * inputs[name].ndim
            part[axis] = slice(length)
            inputs[name] = np.ascontiguousarray(inputs[name][tuple(part)])
        return replace(samples, inputs=inputs)

    def lengths(self, samples: Samples) -> npt.NDArray[np.int64]:
        """Count places of each sample up to the last that holds something else than all samples hold at the end.

        Args:
            samples: Samples.

        Returns:
            At least 1 for each, `[N]`.
        """
        longest = np.ones(samples.count, np.int64)
        for name, axis in self.axes.items():
            places = np.moveaxis(samples.inputs[name], axis, 1).reshape(
                samples.count, samples.inputs[name].shape[axis], -1
            )
            filling = places[0, -1, 0]
            differs = (places != filling).any(2)
            last = places.shape[1] - differs[:, ::-1].argmax(1)
            longest = np.maximum(longest, np.where(differs.any(1), last, 1))
        return longest


def find_padding(model: ir.Model, program: Program, samples: Samples) -> Padding | None:
    """Find an axis that the samples do not fill, whose length is free and whose end no output depends on.

    All inputs with a free dimension of one name, which is not the batch, are looked at together: texts and their masks.
    A shortest, a longest and a sample between them are run as they are and cut to their own length; every output must
    keep its shape and its values.

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
        padding = Padding(axes)
        (whole, *others) = {samples.inputs[name].shape[axis] for name, axis in axes.items()}
        if others or not all(samples.inputs[name].size for name in axes):
            continue
        lengths = padding.lengths(samples)
        if lengths.max() < whole and _is_ignored(program, samples, padding, lengths):
            return padding
    return None


def _is_ignored(program: Program, samples: Samples, padding: Padding, lengths: npt.NDArray[np.int64]) -> bool:
    order = np.argsort(lengths, kind="stable")
    for place in np.linspace(0, len(order) - 1, _TRIED).astype(int):
        one = samples.take(order[place : place + 1])
        expected = _outputs(program, one)
        try:
            found = _outputs(program, padding.shorten(one))
        except ModelError:  # a node that only takes the full length
            return False
        if any(not distance(expected[name], found[name]) <= _SAME for name in expected):
            return False
    return True


def _outputs(program: Program, samples: Samples) -> dict[str, Array]:
    feeds = {name: torch.from_numpy(array).to(program.device) for name, array in samples.inputs.items()}
    with torch.no_grad():
        return {name: to_numpy(value) for name, value in program.evaluate(feeds).items()}
