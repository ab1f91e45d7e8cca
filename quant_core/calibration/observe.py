"""Watch activations while samples run through a program."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from quant_core.calibration.activation_range import ActivationRange, measure, merge
from quant_core.calibration.samples import Samples
from quant_core.errors import NonFiniteError
from quant_core.executor.layout import fast_layout


class Evaluates(Protocol):
    """What is needed of an executor's program."""

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
    device: torch.device | str,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[str, ActivationRange]:
    """Collect the distribution of tensors over all samples; memory does not grow with their number.

    Args:
        program: The float model.
        samples: What to run.
        tensors: Names of float tensors; graph inputs are allowed.
        batch_size: Samples a run.
        device: Where the program computes.
        on_batch: Called after each run with samples done and samples in all; may raise to stop.

    Returns:
        Distributions by tensor name, in the order asked for.

    Raises:
        NonFiniteError: If a tensor holds NaN or infinity; names the tensor.
    """
    names = list(dict.fromkeys(tensors))
    ranges: dict[str, ActivationRange] = {}
    done = 0
    for batch in samples.batches(batch_size):
        feeds = {
            name: fast_layout(torch.from_numpy(array).to(device)) for name, array in batch.inputs.items()
        }
        computed = [name for name in names if name not in feeds]
        with torch.no_grad():
            values = feeds | (program.evaluate(feeds, outputs=computed) if computed else {})
        for name in names:
            if not values[name].numel():
                continue
            low, high = (float(extreme) for extreme in torch.aminmax(values[name]))
            if not (math.isfinite(low) and math.isfinite(high)):
                raise NonFiniteError(
                    "this tensor became NaN or infinite in the float model.",
                    remedy="Check that the samples are scaled as the model was trained.",
                    where=name,
                )
            seen = measure(values[name], (low, high))
            ranges[name] = merge(ranges[name], seen) if name in ranges else seen
        done += batch.count
        if on_batch is not None:
            on_batch(done, samples.count)
    return {name: ranges[name] for name in names if name in ranges}
