"""Gradients in tensors inside of a network: of any number, or of all outputs at once with random signs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from quant_core.executor import Program
from quant_core.quantizers.chance import rademacher


def slopes_in(
    program: Program,
    feeds: Mapping[str, Tensor],
    names: Collection[str],
    wanted: Collection[str],
    total: Callable[[Mapping[str, Tensor]], Tensor],
) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """Give the gradients of a number in some tensors, by one run forwards and one back.

    Args:
        program: The float program.
        feeds: Graph inputs.
        names: Tensors to give gradients in.
        wanted: Tensors whose values are wanted.
        total: Values of these -> the number.

    Returns:
        The values; tensor -> its value and gradient, of those that the number depends on.
    """
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[Tensor], Tensor]:
        def kept(x: Tensor) -> Tensor:
            seen[name] = x if x.requires_grad else x.detach().requires_grad_()
            return seen[name]

        return kept

    with torch.enable_grad():
        values = program.evaluate(feeds, outputs=list(wanted), replace={name: hook(name) for name in names})
        number = total(values)
        if not number.requires_grad:
            return values, {}
        found: Sequence[Tensor | None] = torch.autograd.grad(number, list(seen.values()), allow_unused=True)
    slopes = {
        name: (value, slope)
        for (name, value), slope in zip(seen.items(), found, strict=True)
        if slope is not None
    }
    return values, slopes


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

    def total(values: Mapping[str, Tensor]) -> Tensor:
        terms = [
            (value * rademacher(value, chance)).sum()
            for value in (values[name] for name in program.outputs)
            if value.requires_grad
        ]
        return torch.stack(terms).sum() if terms else torch.zeros(())

    return slopes_in(program, feeds, names, list(dict.fromkeys((*program.outputs, *wanted))), total)
