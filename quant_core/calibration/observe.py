"""Watch activations while samples run through a program."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import Protocol

import torch
from torch import Tensor

from quant_core.calibration.activation_range import ActivationRange, as_it_lies, measure, merge
from quant_core.calibration.samples import Samples
from quant_core.errors import NonFiniteError
from quant_core.executor.layout import fast_layout
from quant_core.processors.side_by_side import side_by_side


class Evaluates(Protocol):
    """What is needed of an executor's program."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def evaluate(
        self, feeds: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Give the tensors named by `outputs` for the graph inputs in `feeds`."""


def activation_ranges(
    program: Evaluates,
    samples: Samples,
    tensors: Collection[str],
    *,
    batch_size: int,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[str, ActivationRange]:
    """Collect the distribution of tensors over all samples; memory does not grow with their number.

    Args:
        program: The float model.
        samples: What to run.
        tensors: Names of float tensors; graph inputs are allowed.
        batch_size: Samples a run.
        on_batch: Called after each run with samples done and samples in all; may raise to stop.

    Returns:
        Distributions by tensor name, in the order asked for.

    Raises:
        NonFiniteError: If a tensor holds NaN or infinity; names the tensor.
    """
    watch = RangeWatch(tensors)
    done = 0
    for batch in samples.batches(batch_size):
        feeds = {
            name: fast_layout(torch.from_numpy(array).to(program.device))
            for name, array in batch.inputs.items()
        }
        computed = [name for name in watch.tensors if name not in feeds]
        with torch.no_grad():
            watch.add(feeds | (program.evaluate(feeds, outputs=computed) if computed else {}))
        done += batch.count
        if on_batch is not None:
            on_batch(done, samples.count)
    return watch.ranges


def ranges_in_parts(
    program: Evaluates,
    parts: Sequence[Samples],
    tensors: Collection[str],
    watches: Sequence[RangeWatch] = (),
    *,
    batch_size: int,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[str, ActivationRange]:
    """Collect distributions over samples in parts, without a run of those that a watch has seen.

    Args:
        program: The float model.
        parts: What to run; one that comes twice counts once.
        tensors: Names of float tensors.
        watches: What was shown the parts, each its own or nothing yet; of later parts they may be missing.
        batch_size: Samples a run.
        on_batch: Called after each run with samples done and samples in all; may raise to stop.

    Returns:
        Distributions by tensor name, in the order asked for.
    """
    known: dict[int, dict[str, ActivationRange]] = {id(part): {} for part in parts}
    for part, watch in zip(parts, watches, strict=False):
        known[id(part)] = known[id(part)] or watch.ranges
    parts = list({id(part): part for part in parts}.values())
    total, done = sum(part.count for part in parts), 0
    found: dict[str, ActivationRange] = {}

    def told(now: int, _: int) -> None:
        if on_batch is not None:
            on_batch(done + now, total)

    for part in parts:
        seen = known[id(part)]
        if seen.keys() >= set(tensors):
            seen = {name: seen[name] for name in tensors}
            told(part.count, part.count)
        else:
            seen = activation_ranges(program, part, tensors, batch_size=batch_size, on_batch=told)
        found |= {name: merge(found[name], new) if name in found else new for name, new in seen.items()}
        done += part.count
    return found


class RangeWatch:
    """Collects ranges from runs that somebody makes, batch by batch.

    Attributes:
        tensors: Names of the tensors, each once.
    """

    def __init__(self, tensors: Collection[str]) -> None:
        self.tensors = tuple(dict.fromkeys(tensors))
        self._seen: dict[str, ActivationRange] = {}

    @property
    def ranges(self) -> dict[str, ActivationRange]:
        """Distributions so far by tensor name, in the order asked for; those of empty tensors are missing."""
        return {name: self._seen[name] for name in self.tensors if name in self._seen}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Take in one batch.

        Args:
            values: Tensor name -> value, for every tensor that is watched.

        Raises:
            NonFiniteError: If a tensor holds NaN or infinity; names the tensor.
        """
        names = [name for name in self.tensors if values[name].numel()]
        accelerators = [values[name].device for name in names if values[name].device.type != "cpu"]
        device = accelerators[0] if accelerators else "cpu"
        with closing(side_by_side(lambda name: _measured(name, values[name]), names, device)) as found:
            for name, seen in zip(names, found, strict=True):
                self._seen[name] = merge(self._seen[name], seen) if name in self._seen else seen


def _measured(name: str, value: Tensor) -> ActivationRange:
    flat = as_it_lies(value)
    low, high = (float(extreme) for extreme in torch.aminmax(flat))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NonFiniteError(
            "this tensor became NaN or infinite in the float model.",
            remedy="Check that the samples are scaled as the model was trained.",
            where=name,
        )
    return measure(flat, (low, high))
