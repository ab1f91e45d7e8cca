"""Whether the first axis counts samples: what a model gives for some must not depend on the others beside them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from quant_core.errors import ModelError
from quant_core.executor import Program
from quant_core.executor.layout import fast_layout
from quant_core.sensitivity.sample_axes import shrunk_axis

_FEWEST = 3
_MOST_NOISE = 1e-2
"""Share of an output's energy: 20 dB, which rounding with one range for a whole batch does not reach."""

Tensors = Mapping[str, torch.Tensor]


def check_independence(
    program: Program, feeds: Mapping[str, np.ndarray], outputs: Tensors, where: str
) -> None:
    """Refuse a model whose outputs for some samples change with the samples before and behind them.

    The first and the last sample are left out, so that states which run along the first axis in either direction are
    noticed. An output counts where one axis alone becomes shorter in proportion; one output that is independent is
    enough, for others may compare samples, such as the scores of all images for all texts.

    Args:
        program: The float program, which takes any number of samples.
        feeds: Graph input name -> samples; fewer than three are not enough to tell.
        outputs: Graph output name -> the program's value for those samples.
        where: The model file for messages.

    Raises:
        ModelError: If every output that the first axis ties to the samples depends on the others.
    """
    count = len(next(iter(feeds.values())))
    if count < _FEWEST:
        return
    inner = {
        name: fast_layout(torch.from_numpy(rows[1:-1]).to(program.device)) for name, rows in feeds.items()
    }
    with torch.no_grad():
        fewer = program.evaluate(inner, outputs=tuple(outputs))
    noise = {name: _noise(value, fewer[name], count) for name, value in outputs.items()}
    tied = {name: share for name, share in noise.items() if share is not None}
    if tied and min(tied.values()) > _MOST_NOISE:
        name = min(tied, key=lambda each: tied[each])
        raise ModelError(
            f"output {name!r} for one sample depends on the samples before and behind it, so the first axis of the "
            "inputs does not count samples.",
            remedy="Export the model with the batch as its first axis (batch_first=True in torch), in evaluation mode.",
            where=where,
        )


def _noise(whole: torch.Tensor, inner: torch.Tensor, count: int) -> float | None:
    """Share of the inner samples' energy that is different without the outer ones; None where nothing ties them."""
    found = shrunk_axis(whole, inner, count, 2) if whole.is_floating_point() else None
    if found is None:
        return None
    axis, rows = found
    # Several rows a sample lie together, or step by step with the samples of each step side by side.
    together = whole.narrow(axis, rows, rows * (count - 2))
    apart = whole.reshape(*whole.shape[:axis], rows, count, *whole.shape[axis + 1 :])
    in_turns = apart.narrow(axis + 1, 1, count - 2).flatten(axis, axis + 1)
    return min(_share(together, inner), _share(in_turns, inner))


def _share(wanted: torch.Tensor, found: torch.Tensor) -> float:
    energy = float(wanted.double().square().sum())
    noise = float((wanted.double() - found.double()).square().sum())
    return noise / energy if energy else float(noise > 0)
