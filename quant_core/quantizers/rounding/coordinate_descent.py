"""Coordinate descent: take one input after another and give it the best code there is, the others as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quant_core.codes import QuantizedWeight
from quant_core.ingest.layer import Layer
from quant_core.quantizers.moments.rows import from_rows, rows_shape, to_rows

_PASSES = 4
"""Most rounds over the inputs."""
_MACS = 2e10
"""Multiply-accumulates that the rounds of a layer may take."""
_BLOCK, _INNER = 64, 16
"""Inputs between two products with all others, and those that reach each other one by one."""
_TINY = 1e-30


def affordable_passes(layer: Layer, widths: int) -> int:
    """Say how often to go over the inputs of a layer.

    Args:
        layer: A layer with input moments.
        widths: Widths that are improved together.

    Returns:
        4 where that takes few operations, fewer in large layers, 0 in the largest.
    """
    groups, outputs, inputs = rows_shape(layer)
    return min(_PASSES, int(_MACS / max(1, groups * outputs * inputs**2 * widths)))


def descend(
    layer: Layer,
    weight: npt.NDArray[np.floating],
    starts: Sequence[QuantizedWeight],
    second: Tensor,
    *,
    passes: int | None = None,
) -> list[QuantizedWeight]:
    """Improve integer codes so that the layer's output changes less.

    Minimises `tr(E H E^T)`, E = Q(W) - W, one input after another in their order: with all other codes fixed the best
    one of input k is `c_k - (E H)_k / (s H_kk)`, rounded and clipped to the grid (Behdin et al., QuantEase,
    arXiv:2309.01885, lemma 1, here from the codes of GPTQ and in blocks of 64 inputs). No change makes the error
    larger. Steps stay: fitted to the codes they would be smaller, and what every layer then loses of its output's
    size adds up over layers.

    Args:
        layer: A layer with input moments.
        weight: Its float weight.
        starts: Integer codes and scales to start from, at any widths; all are improved in one sweep.
        second: H, the second moments of the inputs, `[groups, inputs, inputs]`.
        passes: Most rounds over the inputs, fewer where nothing changes any more; 0 gives the start back, None is
            `affordable_passes`.

    Returns:
        The improved codes, in the order of `starts`.
    """
    passes = affordable_passes(layer, len(starts)) if passes is None else passes
    if not passes or not starts:
        return list(starts)
    # Inputs lie along the first axis, so that one input of all rows is one piece of memory.
    target = to_rows(layer, np.asarray(weight, dtype=np.float32)).permute(2, 0, 1)
    rows = target.shape[2]
    laid = zip(*(_laid_out(layer, start) for start in starts), strict=True)
    codes, scale, low, high = (_side_by_side(parts) for parts in laid)
    slope = _product(second, codes * scale - target.repeat(1, 1, len(starts)))
    curvature = second.diagonal(dim1=1, dim2=2).T[:, :, None].clamp_min(_TINY)
    for left in reversed(range(passes)):
        if not _sweep(codes, slope, scale, curvature, low, high, second, last=not left):
            break
    found = []
    for start, values in zip(starts, torch.split(codes, rows, 2), strict=True):
        whole = from_rows(layer, values.permute(1, 2, 0).contiguous())
        shift = 0 if start.zero_point is None else start.spread(start.zero_point)
        found.append(replace(start, codes=(whole + shift).astype(np.int8)))
    return found


def _laid_out(layer: Layer, start: QuantizedWeight) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes from the zero point, steps, least and greatest codes, `[inputs or 1, groups, rows]` each."""

    def laid(values: npt.NDArray[np.generic], *, alike: bool = False) -> Tensor:
        whole = np.broadcast_to(values, layer.shape).astype(np.float32)
        rows = to_rows(layer, whole).permute(2, 0, 1)
        return (rows[:1] if alike else rows).contiguous()

    by_row = start.block_size is None
    shift = np.zeros((), np.float32) if start.zero_point is None else start.spread(start.zero_point)
    low, high = (
        laid(limit - shift.astype(np.float32), alike=by_row and start.outliers is None)
        for limit in start.code_limits()
    )
    return laid(start.elements()), laid(start.spread(start.scale), alike=by_row), low, high


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Rows of every start; what is the same for all inputs lies in memory once."""
    inputs = max(len(part) for part in parts)
    return torch.cat([part.expand(inputs, -1, -1) for part in parts], dim=2)


def _sweep(
    codes: Tensor,
    slope: Tensor,
    scale: Tensor,
    curvature: Tensor,
    low: Tensor,
    high: Tensor,
    second: Tensor,
    *,
    last: bool,
) -> bool:
    """One round over the inputs, in place, `slope` = H E kept up to date as far as it is read; tells of any change."""
    inputs = len(codes)
    changed = False
    moved = torch.empty(_BLOCK, *codes.shape[1:])
    steps, added = moved.numpy(), np.empty((_INNER, *codes.shape[1:]), dtype=np.float32)
    best = np.empty_like(steps[0])
    parts = (codes, scale, curvature, low, high)
    values, scales, curvatures, lows, highs = (part.expand(inputs, -1, -1).numpy() for part in parts)
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        for inner in range(start, stop, _INNER):
            end = min(inner + _INNER, stop)
            part = slope[inner:end]
            if inner > start:
                part = part + _product(second[:, inner:end, start:inner], moved[: inner - start])
            else:
                part = part.clone()
            inside = part.numpy()
            shares = second[:, inner:end, inner:end].permute(1, 2, 0)[..., None].numpy()
            for at, k in enumerate(range(inner, end)):
                step = steps[k - start]
                np.divide(inside[at], scales[k], out=best)
                best /= curvatures[k]
                np.subtract(values[k], best, out=best)
                np.rint(best, out=best)
                np.maximum(best, lows[k], out=best)
                np.minimum(best, highs[k], out=best)
                np.subtract(best, values[k], out=step)
                step *= scales[k]
                values[k] = best
                if later := end - k - 1:
                    np.multiply(shares[at, at + 1 :], step, out=added[:later])
                    inside[at + 1 :] += added[:later]
        if steps[: stop - start].any():
            changed = True
            first = stop if last else 0
            slope[first:] += _product(second[:, first:, start:stop], moved[: stop - start])
    return changed


def _product(second: Tensor, rows: Tensor) -> Tensor:
    """`[groups, n, m]` times `[m, groups, rows]`, as `[n, groups, rows]`."""
    if len(second) == 1:
        return (second[0] @ rows.reshape(len(rows), -1)).reshape(-1, 1, rows.shape[2])
    return (second @ rows.transpose(0, 1)).transpose(0, 1)
