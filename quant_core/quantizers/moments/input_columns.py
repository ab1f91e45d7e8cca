"""The columns that a layer multiplies its weights with, cut out of what it reads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import onnx_ir as ir
import torch

from quant_core.ingest.layer import Layer, Use

_FEWEST_COLUMNS = 4096
"""Columns of a layer that are taken where there are as many."""
_FEWEST_OF_GROUPS = 1024
"""The same of a layer in groups, whose moments are many and small."""
_COLUMNS_AN_INPUT = 4
"""Columns for each input that a wide layer is given beyond those."""
_MOST_COLUMNS = 16384


def input_columns(
    layer: Layer,
    use: Use,
    node: ir.Node,
    x: torch.Tensor,
    read: torch.Tensor | None,
    share: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Take a bounded random share of the columns of one batch.

    Args:
        layer: The layer.
        use: One of its uses.
        node: The node of that use.
        x: What the node reads.
        read: Which rows of a Gemm or MatMul with one matrix count; None for all.
        share: Share of all columns of the layer that this batch may give.
        generator: Source of the choice.

    Returns:
        `[groups, positions, inputs]`; inputs of a kernel by taps, then by channels, as they lie in memory.
    """
    if layer.op == "Conv":
        return _convolution_columns(layer, node, x, share, generator)
    if layer.matrices > 1:
        return _stacked_columns(layer, x, share, generator)
    if layer.op == "ConvTranspose":
        x = x.movedim(1, -1)
    elif use.op == "Gemm" and _is_transposed(node):
        x = x.T
    rows = x.reshape(-1, x.shape[-1])
    if read is not None:
        rows = rows[read]
    wanted = _wanted(rows.shape[1], share)
    if len(rows) > wanted:
        rows = rows[torch.randint(len(rows), (wanted,), generator=generator).to(x.device)]
    return rows[None]


def _stacked_columns(layer: Layer, x: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """What each matrix of a stack is multiplied with, at the same positions for all."""
    stack = layer.shape[:-2]
    if x.dim() == 1:
        x = x[None]
    x = x.reshape(*[1] * (len(stack) + 2 - x.dim()), *x.shape)
    first = x.dim() - 2 - len(stack)
    along = [first + at for at, size in enumerate(stack) if size > 1]
    if any(x.shape[at] > 1 for at in along):
        x = x.expand([stack[at - first] if at in along else size for at, size in enumerate(x.shape)])
    rest = [at for at in range(x.dim() - 1) if at not in along]
    matrices = math.prod(x.shape[at] for at in along)
    rows = x.permute(*along, *rest, x.dim() - 1).reshape(matrices, -1, x.shape[-1])
    wanted = _wanted(rows.shape[2], share)
    if rows.shape[1] > wanted:
        rows = rows[:, torch.randint(rows.shape[1], (wanted,), generator=generator).to(x.device)]
    return rows.expand(math.prod(stack), -1, -1)


def _is_transposed(node: ir.Node) -> bool:
    transposed: int = node.attributes.get_int("transA", 0)
    return transposed != 0


def columns_at(layer: Layer, node: ir.Node, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Take the columns that give certain rows of a layer's output.

    Args:
        layer: A Conv, a Gemm that does not transpose its input, or a MatMul with one matrix.
        node: The node that reads the weight.
        x: What it reads.
        places: Rows of the output with its channels last, `[columns]`.

    Returns:
        `[groups, columns, inputs]`, inputs in the order of the weight.
    """
    if layer.op != "Conv":
        return x.reshape(-1, x.shape[-1])[places][None]
    found = _cut_columns(layer, node, x, lambda _: places)
    split = found.view(*found.shape[:2], math.prod(layer.shape[2:]), -1)
    return split.transpose(2, 3).flatten(2)


def _convolution_columns(
    layer: Layer, node: ir.Node, x: torch.Tensor, share: float, generator: torch.Generator
) -> torch.Tensor:
    inputs = layer.shape[1] * math.prod(layer.shape[2:])

    def pick(count: int) -> torch.Tensor:
        wanted = min(count, _wanted(inputs, share, layer.group))
        if wanted == count:
            return torch.arange(count)
        return torch.randint(count, (wanted,), generator=generator)

    return _cut_columns(layer, node, x, pick)


def _cut_columns(
    layer: Layer, node: ir.Node, x: torch.Tensor, pick: Callable[[int], torch.Tensor]
) -> torch.Tensor:
    """Columns at the places that are picked of so many."""
    kernel = layer.shape[2:]
    spatial = len(kernel)
    strides = list(node.attributes.get_ints("strides", [1] * spatial))
    dilations = list(node.attributes.get_ints("dilations", [1] * spatial))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    x = torch.nn.functional.pad(x, _padding(node, x.shape[2:], reach, strides))
    x = x.movedim(1, -1).contiguous()  # all channels of a place in one piece
    places = [(size - r) // s + 1 for size, r, s in zip(x.shape[1:-1], reach, strides, strict=True)]
    picked = pick(math.prod((len(x), *places))).to(x.device)
    image, *place = torch.unravel_index(picked, (len(x), *places))
    rows = x.view(-1, x.shape[-1])
    taps = []
    for tap in itertools.product(*(range(k) for k in kernel)):
        at = image
        for axis in range(spatial):
            at = at * x.shape[1 + axis] + (place[axis] * strides[axis] + tap[axis] * dilations[axis])
        taps.append(rows.index_select(0, at))
    if layer.group == 1:
        return torch.cat(taps, dim=1)[None]
    # All columns of an input in one piece, which products of many small matrices run along.
    split = torch.cat(taps, dim=1).t().contiguous().view(len(taps), layer.group, -1, len(picked))
    return split.permute(1, 3, 0, 2).flatten(2)


def _padding(node: ir.Node, shape: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Padding in torch's order, last axis first."""
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    spatial = len(shape)
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        pairs = []
        for size, r, s in zip(shape, reach, strides, strict=True):
            total = max(0, (-(-size // s) - 1) * s + r - size)
            small, large = total // 2, total - total // 2
            pairs.append((small, large) if mode == "SAME_UPPER" else (large, small))
    else:
        pads = (
            [0] * 2 * spatial
            if mode == "VALID"
            else list(node.attributes.get_ints("pads", [0] * 2 * spatial))
        )
        pairs = list(zip(pads[:spatial], pads[spatial:], strict=True))
    return [amount for pair in reversed(pairs) for amount in pair]


def _wanted(inputs: int, share: float, groups: int = 1) -> int:
    fewest = _FEWEST_COLUMNS if groups == 1 else _FEWEST_OF_GROUPS
    return max(1, round(share * min(_MOST_COLUMNS, max(fewest, _COLUMNS_AN_INPUT * inputs))))
