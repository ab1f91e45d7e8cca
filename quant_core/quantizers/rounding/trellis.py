"""Trellis-coded weights in GPTQ's sweep: each input of all outputs is rounded by a search for the best paths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.codes.number_formats import half_from
from quant_core.codes.trellis import FEWEST_OUTPUTS, TRELLIS_BITS
from quant_core.ingest.layer import Layer
from quant_core.quantizers.bias_correction.input_means import corrected_bias
from quant_core.quantizers.moments.feedback import Feedback, Floats
from quant_core.quantizers.moments.input_moments import Moments, has_moments
from quant_core.quantizers.moments.principal_moments import PrincipalMoments
from quant_core.quantizers.moments.rows import from_rows, scale_to_rows, to_rows
from quant_core.quantizers.rounding.coordinate_descent import affordable_passes
from quant_core.quantizers.rounding.gptq import are_known, output_error
from quant_core.quantizers.rounding.viterbi import PathGrid, halves_of

_FACTORS = (0.82, 0.92, 1.02)
"""Factors of the scalar steps that are tried: values reach as far as scalar codes, and lie twice as dense."""

_ROUNDS = 1
"""Most rounds over the inputs; three more gain 0.02 dB on ResNet-20 at 2 bits."""
_TINY = 1e-30


def path_axis(layer: Layer) -> int | None:
    """Find the axis along which the paths of a layer run.

    Args:
        layer: Any layer.

    Returns:
        The axis of its outputs; None where GPTQ rounds none or several matrices, or outputs are fewer than 8.
    """
    if layer.op not in {"Conv", "Gemm", "MatMul"} or layer.group > 1 or layer.matrices > 1:
        return None
    axis = layer.axis
    if not isinstance(axis, int) or not has_moments(layer) or layer.shape[axis] < FEWEST_OUTPUTS:
        return None
    return axis


def can_be_coded(layer: Layer, weight: QuantizedWeight) -> bool:
    """Tell whether trellis codes can take the place of scalar ones.

    Args:
        layer: The layer.
        weight: Its codes.

    Returns:
        True for integers of 2 to 5 bits with a step a channel and no zero point, in layers with paths.
    """
    widths = {weight.bits} if weight.narrow is None else {weight.bits, weight.narrow.bits}
    plain = weight.format == "int" and weight.zero_point is None and weight.block_size is None
    apart = weight.outliers is not None or weight.trellis
    along = path_axis(layer)
    return plain and not apart and along is not None and along == weight.axis and widths <= {*TRELLIS_BITS}


def trellis_coded(
    layer: Layer,
    weight: npt.NDArray[np.floating],
    start: QuantizedWeight,
    moments: Moments,
    bias: CorrectedBias | None,
    *,
    descent: bool = True,
) -> QuantizedWeight:
    """Code a weight anew in the same bits so that the layer's output changes less.

    GPTQ's sweep, whose inputs are rounded by `viterbi.py` over all outputs, under each of three factors of the scalar
    steps; then coordinate descent, in which each input takes the best paths while all others are what they are.

    Args:
        layer: A layer.
        weight: Its float weight.
        start: Its scalar codes, for which `can_be_coded` is true.
        moments: Second moments of its inputs.
        bias: The layer's float bias, if it may be corrected.
        descent: Whether to go over the inputs again behind the sweep.

    Returns:
        The weight; the scalar one where its error is no larger.
    """
    rows = to_rows(layer, np.asarray(weight, dtype=np.float32))
    _, outputs, inputs = rows.shape
    used = moments if bias is None else moments.centred()
    second = used.shrunk().cpu()
    feedback = used.feedback() if isinstance(used, PrincipalMoments) else Feedback.of(second)
    scales = [half_from((start.scale * np.float32(factor / 2)).astype(np.float32)) for factor in _FACTORS]
    steps = np.stack([scale_to_rows(layer, scale)[0, :, 0].numpy() for scale in scales])
    halves = halves_of(start, outputs)
    values, lost = feedback.sweep(feedback.taken(rows), PathGrid(steps, halves).nearest, len(scales))
    best = int(lost.sum((0, 2)).argmin())
    found = feedback.given_back(values)[best, 0].float().numpy()
    if descent and are_known(moments, inputs):
        grid = PathGrid(steps[best : best + 1], halves)
        found = _descended(
            found,
            rows[0].numpy(),
            grid,
            second[0].numpy(),
            min(_ROUNDS, affordable_passes(layer, 1)),
        )
    codes = from_rows(layer, torch.from_numpy(np.ascontiguousarray(found))[None]).astype(np.int8)
    coded = replace(start, codes=codes, scale=scales[best], trellis=True)
    if not output_error(layer, rows, second, coded) < output_error(layer, rows, second, start):
        return start
    return coded if bias is None else replace(coded, bias=corrected_bias(layer, weight, coded, moments, bias))


def _descended(values: Floats, weight: Floats, grid: PathGrid, second: Floats, passes: int) -> Floats:
    """Values `[outputs, inputs]` after rounds of coordinate descent over the inputs."""
    laid, steps = np.ascontiguousarray(values.T), grid.steps[0]
    error = laid * steps - weight.T
    for _ in range(passes):
        changed = False
        for k in range(len(laid)):
            slope = (second[k] @ error) / max(float(second[k, k]), _TINY)
            found = grid.values((laid[k] - slope / steps)[None])[0]
            if not np.array_equal(found, laid[k]):
                changed = True
                error[k] += (found - laid[k]) * steps
                laid[k] = found
        if not changed:
            break
    return laid.T
