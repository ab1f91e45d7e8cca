"""What the float network gives at some places of what followed layers write."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.executor import Program
from quant_core.executor.layout import fast_layout
from quant_core.ingest.layer import Layer
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.read_positions import reads_in_part, run_as_read, seeing_batch
from quant_core.quantizers.moments.rows import rows_shape

MOST_COLUMNS = 8192
"""Columns of a layer that are looked at where few are asked for."""

_COLUMN_ELEMENTS, _ALL_ELEMENTS = 1 << 22, 1 << 27
"""Numbers in the columns of one layer, and of all layers that are visited in one run."""
_FEWEST_COLUMNS = 256
_SAME = 1e-3
"""Share of the largest value by which rows of one sample may differ when it is run beside others."""


@dataclass(frozen=True, eq=False)
class FloatColumns:
    """What the float network gives at some places of a layer's output.

    Attributes:
        places: Which rows of the output, `[columns]`.
        output: `[columns, outputs]`.
        sample: Which sample it belongs to, `[columns]`.
    """

    places: Tensor
    output: Tensor
    sample: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Put the columns of several batches together."""
        return cls(
            torch.cat([part.places for part in parts]),
            torch.cat([part.output for part in parts]),
            torch.cat([part.sample for part in parts]),
        )


def float_columns(
    network: FloatNetwork, layers: Sequence[Layer], samples: Samples, most: int, seed: int
) -> dict[str, FloatColumns]:
    """Run the float network over samples, and keep what layers give at places that its outputs read.

    Args:
        network: The network.
        layers: The layers, of one node each.
        samples: What to run.
        most: Columns of a layer at the most; of large layers fewer are kept.
        seed: Seed of the choice of places.

    Returns:
        Layer name -> what it gives; without layers whose rows do not lie sample behind sample.
    """
    chance = torch.Generator().manual_seed(seed)
    program = network.program
    seen = layers if reads_in_part(program, layers, samples) else []
    alone = _outputs(program, samples.first(1), layers, ())[0]
    size = min(network.batch_size, seeing_batch(layers)) if seen else network.batch_size
    parts: dict[str, list[FloatColumns]] = {}
    done = 0
    for batch in samples.batches(size):
        outputs, read = _outputs(program, batch, layers, seen)
        for layer in layers:
            rows, counts = outputs[layer.name], read.get(layer.uses[0].output)
            each = len(rows) // batch.count
            if not done and not _same(rows[:each], alone[layer.name]):
                continue  # samples do not lie one behind the other
            if done and layer.name not in parts:
                continue
            found = torch.arange(len(rows)) if counts is None else counts.nonzero()[:, 0].cpu()
            wanted = _wanted(layer, len(layers), most, batch.count / samples.count)
            if len(found) > wanted:
                found = found[torch.randperm(len(found), generator=chance)[:wanted].sort().values]
            kept = FloatColumns(found + done * each, rows[found.to(rows.device)].cpu(), found // each + done)
            parts.setdefault(layer.name, []).append(kept)
        done += batch.count
    return {name: FloatColumns.joined(found) for name, found in parts.items()}


def _outputs(
    program: Program, samples: Samples, layers: Sequence[Layer], seen: Sequence[Layer]
) -> tuple[dict[str, Tensor], Mapping[str, Tensor]]:
    """Layer name -> rows that it writes in float; tensor -> which of them are read, where some are not."""
    feeds = {
        name: fast_layout(torch.from_numpy(np.ascontiguousarray(array)).to(program.device))
        for name, array in samples.inputs.items()
    }
    names = [layer.uses[0].output for layer in layers]
    values, read = run_as_read(program, feeds, names, seen, samples.count)
    rows = {}
    for layer in layers:
        output = values[layer.uses[0].output].movedim(1 if layer.op == "Conv" else -1, -1)
        rows[layer.name] = output.reshape(-1, output.shape[-1]).float()
    return rows, read


def _same(rows: Tensor, alone: Tensor) -> bool:
    if rows.shape != alone.shape or not rows.numel():
        return False
    return bool((rows - alone).abs().max() <= _SAME * alone.abs().max())


def _wanted(layer: Layer, layers: int, most: int, share: float) -> int:
    """Columns of a layer that are looked at in a share of the samples."""
    groups, outputs, inputs = rows_shape(layer)
    elements = min(_COLUMN_ELEMENTS * most // MOST_COLUMNS, _ALL_ELEMENTS // layers)
    columns = min(most, max(_FEWEST_COLUMNS, elements // (groups * max(inputs, outputs))))
    return max(1, math.ceil(share * columns))
