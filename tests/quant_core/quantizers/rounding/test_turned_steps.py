"""The code that integers have more below 0 than above lies on the side of the larger weights."""

import numpy as np
import pytest

from quant_core.quantizers import quantize_weight
from quant_core.quantizers.rounding.gptq import gptq
from quant_core.spec import QuantizeSpec, WeightOptions
from quant_core.spec.weight_grid import WeightGrid
from tests.quant_core.quantizers.rounding.one_product import errors, setting


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_the_whole_range_takes_steps_that_are_smaller_by_a_code(bits, rng):
    weight = rng.uniform(-0.5, 0.5, (6, 40_000)).astype(np.float32)
    weight[:3, 0], weight[3:, 0] = 1.0, -1.0
    rounded = quantize_weight(weight, bits, 0, WeightGrid(range_search="minmax", turned=True))
    np.testing.assert_allclose(rounded.scale, [-(2.0 ** (1 - bits))] * 3 + [2.0 ** (1 - bits)] * 3)
    assert np.array_equal(rounded.codes[:, 0], np.full(6, -(2 ** (bits - 1))))
    straight = quantize_weight(weight, bits, 0, WeightGrid(range_search="minmax"))
    one, other = (np.square(found.dequantize() - weight)[:3].sum(1) for found in (rounded, straight))
    assert (one < other).all()
    assert np.array_equal(rounded.dequantize()[3:], straight.dequantize()[3:])


@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
@pytest.mark.parametrize("search", ["mse", "minmax", "percentile"])
def test_weights_of_the_other_sign_come_out_as_the_others_do(granularity, search, rng):
    weight = rng.standard_normal((8, 64)).astype(np.float32)
    grid = WeightGrid(granularity, 16, range_search=search, turned=True)
    one, other = (quantize_weight(sign * weight, 3, 0, grid) for sign in (1, -1))
    np.testing.assert_array_equal(one.dequantize(), -other.dequantize())
    assert (one.scale < 0).any() if granularity != "tensor" else True


def test_only_symmetric_integers_of_few_bits_are_turned(rng):
    weight = np.abs(rng.standard_normal((4, 32))).astype(np.float32)
    assert (quantize_weight(weight, 4, 0, WeightOptions().grid(4)).scale < 0).all()
    for bits, options in (
        (8, {}),
        (4, {"symmetric": False}),
        (4, {"weight_format": "nvfp4"}),
        (8, {"weight_format": "fp8_e4m3"}),
    ):
        assert (quantize_weight(weight, bits, 0, WeightOptions(**options).grid(bits)).scale > 0).all()
    for target in ("tensorrt", "portable", "ort-cuda"):
        grid = QuantizeSpec(budget={"size": 0.5}, target=target).grid(4)
        assert (quantize_weight(weight, 4, 0, grid).scale > 0).all()


@pytest.mark.parametrize(("bits", "gained"), [(2, 0.85), (3, 0.9), (4, 0.95)])
def test_layers_lose_less_by_gptq(bits, gained):
    _, layer, weight, x, moments = setting(48)
    found = []
    for turned in (False, True):
        grid = WeightGrid(range_search="hessian", turned=turned)
        rounded = gptq(layer, weight, moments, [bits], grid_of=lambda _, grid=grid: grid)[bits]
        found.append(errors(x, weight, rounded).sum())
    assert found[1] < gained * found[0]
