"""Trellis-coded weights in GPTQ: less error than scalar codes of the same bits, and those where they are not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from quant_core.codes import CorrectedBias, NarrowChannels
from quant_core.codes.trellis import TRELLIS_BITS, trellis_values
from quant_core.quantizers import quantize_weight
from quant_core.quantizers.moments.rows import to_rows
from quant_core.quantizers.rounding.coordinate_descent import descend
from quant_core.quantizers.rounding.gptq import gptq, output_error
from quant_core.quantizers.rounding.mixed_channels import mixed_codes
from quant_core.quantizers.rounding.trellis import can_be_coded, path_axis, trellis_coded
from quant_core.quantizers.tuning.learned_codes import LearnedCodes
from tests.quant_core.quantizers.rounding.layers import build, moments_of

LAYERS = {
    "conv": ("Conv", (2, 6, 5, 5), (24, 6, 3, 3), {}),
    "gemm": ("Gemm", (12, 40), (35, 40), {"transB": 1}),
    "matmul": ("MatMul", (12, 40), (40, 70), {}),
}


def errors(layer, weight, moments, *codes):
    rows = to_rows(layer, weight)
    return [output_error(layer, rows, moments.shrunk(), found) for found in codes]


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("bits", TRELLIS_BITS)
def test_the_same_bits_lose_less(case, bits):
    _, layer, weight, _ = build(*LAYERS[case])
    moments = moments_of(layer)
    start = gptq(layer, weight, moments, [bits], improve=descend)[bits]
    assert can_be_coded(layer, start)
    found = trellis_coded(layer, weight, start, moments, None)
    assert (found.bits, found.trellis, found.axis) == (bits, True, path_axis(layer))
    stored = found.dense_codes()
    assert -(1 << (bits - 1)) <= stored.min() <= stored.max() < 1 << (bits - 1)
    np.testing.assert_array_equal(trellis_values(stored, found.axis), found.codes)
    before, after = errors(layer, weight, moments, start, found)
    assert after < 0.97 * before
    swept = trellis_coded(layer, weight, start, moments, None, descent=False)
    assert after <= errors(layer, weight, moments, swept)[0]
    assert not can_be_coded(layer, found)


def test_channels_keep_their_two_widths_and_biases_make_up_for_the_mean():
    _, layer, weight, _ = build(*LAYERS["gemm"])
    moments = replace(moments_of(layer), mean=torch.ones(1, 40))
    few = NarrowChannels(2, np.arange(35) % 4 == 0)
    start = mixed_codes(gptq(layer, weight, moments, [2, 4], improve=descend), 4, few)
    bias = CorrectedBias("b", np.zeros(35, np.float32))
    found = trellis_coded(layer, weight, start, moments, bias)
    assert found.narrow is few
    assert np.abs(found.dense_codes()[few.channels] + 0.5).max() < 2
    lost = (found.dequantize() - weight).sum(1)
    np.testing.assert_allclose(found.bias.values, -lost, rtol=1e-3, atol=1e-2)


def test_scalar_codes_stay_where_they_lose_no_more():
    _, layer, _, _ = build(*LAYERS["gemm"])
    weight = np.random.default_rng(0).integers(-2, 2, (35, 40)).astype(np.float32)
    start = replace(
        quantize_weight(weight, 2, 0), codes=weight.astype(np.int8), scale=np.ones(35, np.float32)
    )
    assert trellis_coded(layer, weight, start, moments_of(layer), None) is start


def test_few_outputs_groups_and_other_codes_have_no_paths():
    assert path_axis(build("Gemm", (12, 40), (5, 40), {"transB": 1})[1]) is None
    assert path_axis(build("Conv", (2, 4, 5, 5), (16, 2, 3, 3), {"group": 2})[1]) is None
    _, layer, weight, _ = build(*LAYERS["gemm"])
    assert not can_be_coded(layer, quantize_weight(weight, 6, 0))
    assert not can_be_coded(layer, quantize_weight(weight, 4, None))


@pytest.mark.parametrize("case", LAYERS)
def test_tuning_keeps_to_paths(case):
    model, layer, weight, _ = build(*LAYERS[case])
    moments = moments_of(layer)
    start = trellis_coded(layer, weight, gptq(layer, weight, moments, [3])[3], moments, None)
    learned = LearnedCodes(model, layer, start, torch.ones(4, 4))
    np.testing.assert_array_equal(learned.result().codes, start.codes)
    (u,) = learned.parameters("codes")
    learned.stand_ins()[layer.weight].sum().backward()
    np.testing.assert_allclose(u.grad.numpy(), np.broadcast_to(start.spread(start.scale), weight.shape))
    with torch.no_grad():
        u += torch.randn(u.shape, generator=torch.Generator().manual_seed(0))
    learned.project()
    changed = learned.result()
    assert (changed.codes != start.codes).any()
    np.testing.assert_array_equal(trellis_values(changed.dense_codes(), start.axis), changed.codes)
