"""Samples cut into random batches that fit into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch

from quant_core.calibration.padding import Padding
from quant_core.errors import SamplesError
from quant_core.executor import Program
from quant_core.executor.layout import fast_layout

_PADDED = 16
"""Most samples in a batch whose padding is left out: of more one is long, and all are filled up to it."""

MEMORY = 1 << 30
"""Bytes of activations that a batch may hold at a time."""

_BYTES: WeakKeyDictionary[Program, dict[tuple[tuple[str, torch.Size], ...], int]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Batch:
    """Some of the samples.

    Attributes:
        feeds: Graph input name -> tensor, first axis samples.
        labels: Class of each sample, or None.
        size: Number of samples.
    """

    feeds: Mapping[str, torch.Tensor]
    labels: torch.Tensor | None
    size: int

    def part(self, start: int, stop: int) -> Batch:
        """Give some of the samples.

        Args:
            start: The first.
            stop: Their end.

        Returns:
            A smaller batch.
        """
        labels = None if self.labels is None else self.labels[start:stop]
        return Batch({name: value[start:stop] for name, value in self.feeds.items()}, labels, stop - start)


def activation_bytes(program: Program, feeds: Mapping[str, torch.Tensor], fixed: int | None = None) -> int:
    """Measure how many bytes all tensors of the graph take together for one sample; of each shape once.

    Args:
        program: The network.
        feeds: Graph input name -> tensor, first axis samples.
        fixed: The batch size the graph insists on, or None.

    Returns:
        Bytes a sample.
    """
    size = fixed or 1
    first = {name: tensor[:size] for name, tensor in feeds.items()}
    known, shapes = _BYTES.setdefault(program, {}), tuple((n, t.shape) for n, t in first.items())
    if shapes not in known:
        values = program.every_tensor(first)
        held = sum(
            value.numel() * value.element_size() for name, value in values.items() if name not in first
        )
        known[shapes] = max(1, held // size)
    return known[shapes]


def batch_size(samples: int, sample_bytes: int, largest: int, clusters: int, *, padded: bool) -> int:
    """Say how many samples the largest batch has.

    Args:
        samples: How many there are.
        sample_bytes: Memory one sample takes during the work.
        largest: Most samples in a batch.
        clusters: At least so many batches, where there are samples enough.
        padded: Whether samples are filled up.

    Returns:
        At least 1.
    """
    return max(1, min(largest, samples // clusters, MEMORY // sample_bytes, _PADDED if padded else largest))


def split_batches(
    feeds: Mapping[str, torch.Tensor],
    labels: torch.Tensor | None,
    *,
    sample_bytes: int,
    seed: int,
    device: torch.device | str = "cpu",
    fixed: int | None = None,
    largest: int = 32,
    clusters: int = 32,
    padding: Padding | None = None,
) -> tuple[Batch, ...]:
    """Cut the samples into batches at random.

    Args:
        feeds: Graph input name -> tensor, first axis samples.
        labels: Class of each sample, shape [samples], or None.
        sample_bytes: Memory one sample takes during the work.
        seed: Seed of the order.
        device: Where the batches shall lie.
        fixed: The batch size the graph insists on; samples that fill no whole batch are then left out.
        largest: Most samples in a batch.
        clusters: At least so many batches, where there are samples enough; the spread between batches is what
            standard errors of traces come from.
        padding: What fills the samples up, which each batch is then given without, and fewer samples together.

    Returns:
        Batches of equal size, or of two sizes that differ by one.

    Raises:
        SamplesError: If there are too few samples for one batch.
    """
    count = next(iter(feeds.values())).shape[0] if feeds else 0
    if count < (fixed or 1):
        raise SamplesError(
            f"{count} samples are too few for a batch of {fixed or 1}.", remedy="Give more samples."
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    if fixed:
        parts: Sequence[torch.Tensor] = order[: count // fixed * fixed].view(-1, fixed).unbind()
    else:
        size = batch_size(count, sample_bytes, largest, clusters, padded=padding is not None)
        parts = [torch.from_numpy(part) for part in np.array_split(order.numpy(), -(-count // size))]
    batches = []
    for part in parts:
        rows = {name: tensor[part] for name, tensor in feeds.items()}
        if padding is not None:
            arrays = padding.shorten({name: tensor.cpu().numpy() for name, tensor in rows.items()})
            rows = {name: torch.from_numpy(array) for name, array in arrays.items()}
        batches.append(
            Batch(
                {name: fast_layout(tensor.to(device)) for name, tensor in rows.items()},
                None if labels is None else labels[part].to(device),
                len(part),
            )
        )
    return tuple(batches)
