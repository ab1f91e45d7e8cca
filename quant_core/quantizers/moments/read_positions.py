"""Which rows of a layer's input the outputs read: padding, for one, is computed like all else and then masked away."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.simulation.slopes import random_slopes

_LOOKED_AT = 4
"""Samples that tell whether there are rows which nothing reads."""
_LARGEST_BATCH = 8
_BYTES, _BYTES_AN_ELEMENT = 1 << 30, 12
"""What a run with gradients may hold, and what these keep for an element of what layers read and write, with what lies
between layers."""


@dataclass(frozen=True)
class Run:
    """Values of one batch, and what of them counts.

    Attributes:
        values: Tensor name -> value.
        read: Tensor that a layer writes, `[..., outputs]` -> bool `[rows]`, whether the outputs read that row; a
            tensor that is not here is read in all rows.
    """

    values: Mapping[str, Tensor]
    read: Mapping[str, Tensor]


def has_rows(layer: Layer) -> bool:
    """Tell whether a layer multiplies rows, each by itself, several of a sample.

    Args:
        layer: A layer with input moments.

    Returns:
        True for Gemm and MatMul with one matrix, unless they are known to read one row of each sample, which then
        counts.
    """
    one_row = 0 < layer.macs <= layer.parameters * len(layer.uses)
    return layer.op in {"Gemm", "MatMul"} and layer.matrices == 1 and not one_row


def reads_in_part(program: Program, layers: Sequence[Layer], samples: Samples) -> bool:
    """Tell whether some rows that layers write are never read, by up to four samples spread over all.

    Args:
        program: The float program.
        layers: Layers with input moments.
        samples: What there is.

    Returns:
        False for most networks, in which `run_and_see` would find all rows read.
    """
    written = [use.output for layer in layers if has_rows(layer) for use in layer.uses]
    groups = samples.count // samples.unit
    if not written or not groups:
        return False
    for group in range(0, groups, -(-groups // _LOOKED_AT)):
        feeds = samples.units(np.array([group])).feeds(program.device)
        read = run_and_see(program, feeds, (), layers, samples.unit).read
        if not all(bool(rows.all()) for rows in read.values()):
            return True
    return False


def seeing_batch(layers: Sequence[Layer]) -> int:
    """Give the samples that `run_and_see` can take at a time in a gigabyte.

    Args:
        layers: Layers of the network.

    Returns:
        1 to 8.
    """
    elements = sum(layer.input_elements + layer.output_elements for layer in layers)
    return max(1, min(_LARGEST_BATCH, _BYTES // max(1, _BYTES_AN_ELEMENT * elements)))


def run_and_see(
    program: Program,
    feeds: Mapping[str, Tensor],
    wanted: Collection[str],
    layers: Sequence[Layer],
    samples: int,
) -> Run:
    """Run the network, and tell which rows of what its layers write reach the outputs.

    A row is not read if the gradient of the outputs, with random signs, is 0 in it to the last bit. That of a masked
    row is, for its share in everything behind is 0. Where no row of a sample is read, as before a saturated softmax,
    the gradient tells nothing, and all of them count.

    Args:
        program: The float program.
        feeds: Graph inputs.
        wanted: Tensors whose values are wanted.
        layers: Layers with input moments; those without rows are passed over.
        samples: How many samples the feeds hold.

    Returns:
        The values wanted, and the rows that are read.
    """
    written = [use.output for layer in layers if has_rows(layer) for use in layer.uses]
    inside = [name for name in wanted if name not in feeds]
    values, slopes = random_slopes(program, feeds, written, torch.Generator().manual_seed(0), inside)
    return Run(
        {name: feeds[name] if name in feeds else values[name].detach() for name in wanted},
        {name: _read(slope, samples) for name, (_, slope) in slopes.items() if slope.dim() > 1},
    )


def run_as_read(
    program: Program,
    feeds: Mapping[str, Tensor],
    wanted: Sequence[str],
    layers: Sequence[Layer],
    samples: int,
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Run the network, and tell which rows count where layers are given that may compute some in vain.

    Args:
        program: The float program.
        feeds: Graph inputs.
        wanted: Tensors whose values are wanted.
        layers: Layers that compute rows in vain; none where all rows count.
        samples: How many samples the feeds hold.

    Returns:
        The values wanted, and of tensors that layers write which rows are read, `[rows]`.
    """
    if layers:
        run = run_and_see(program, feeds, wanted, layers, samples)
        return run.values, run.read
    with torch.no_grad():
        lacking = [name for name in wanted if name not in feeds]
        return {**feeds, **program.evaluate(feeds, outputs=lacking)}, {}


def _read(slope: Tensor, samples: int) -> Tensor:
    read = (slope.reshape(-1, slope.shape[-1]) != 0).any(1)
    if len(read) % samples:
        return read if bool(read.any()) else ~read
    rows = read.view(samples, -1)
    return (rows | ~rows.any(1, keepdim=True)).view(-1)
