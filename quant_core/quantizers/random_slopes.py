"""Gradients of all outputs at once, with random signs: what they say about tensors inside of a network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from quant_core.executor import Program


def random_slopes(
    program: Program,
    feeds: Mapping[str, Tensor],
    names: Collection[str],
    chance: torch.Generator,
    wanted: Collection[str] = (),
) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """Give `J^T s` in some tensors, J the slopes of all elements of the outputs and s random signs.

    Args:
        program: The float program.
        feeds: Graph inputs.
        names: Tensors to give gradients in.
        chance: What draws the signs.
        wanted: Further tensors whose values are wanted.

    Returns:
        Values of the outputs and of what is wanted; tensor -> its value and gradient, of those that an output depends
        on.
    """
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[Tensor], Tensor]:
        def kept(x: Tensor) -> Tensor:
            seen[name] = x if x.requires_grad else x.detach().requires_grad_()
            return seen[name]

        return kept

    with torch.enable_grad():
        values = program.evaluate(
            feeds,
            outputs=list(dict.fromkeys((*program.outputs, *wanted))),
            replace={name: hook(name) for name in names},
        )
        terms = []
        for value in (values[name] for name in program.outputs):
            if value.requires_grad:
                signs = 2.0 * torch.randint(2, value.shape, generator=chance) - 1
                terms.append((value * signs.to(value)).sum())
        if not terms:
            return values, {}
        found: Sequence[Tensor | None] = torch.autograd.grad(
            torch.stack(terms).sum(), list(seen.values()), allow_unused=True
        )
    slopes = {
        name: (value, slope)
        for (name, value), slope in zip(seen.items(), found, strict=True)
        if slope is not None
    }
    return values, slopes
