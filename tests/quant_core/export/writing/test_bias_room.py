"""Channels of next to no weight beside a large bias keep that bias in integer kernels."""

import numpy as np
import pytest

from quant_core.codes import QuantizedWeight
from quant_core.codes.trellis import trellis_values
from quant_core.export.writing.bias_room import with_room_for_bias
from quant_core.verification.layer_check import check_layers
from tests.quant_core.export.networks import Net


def weight_of(scale):
    codes = np.array([[127, -64, 1], [3, -128, 7]], dtype=np.int8)
    return QuantizedWeight(codes=codes, scale=np.array(scale, dtype=np.float32), axis=0, bits=8)


def test_steps_grow_where_the_bias_would_not_fit_and_nowhere_else():
    bias, step = np.array([5.0, 5.0]), 0.05
    weight = weight_of([1e-9, 0.01])
    roomy = with_room_for_bias(weight, bias, step)
    assert (np.abs(bias) / (roomy.scale * step) <= 2.0**30 * (1 + 1e-6)).all()
    np.testing.assert_array_equal(roomy.codes[1], weight.codes[1])
    assert roomy.scale[1] == weight.scale[1]
    # Weights move by half a new step, which is nothing beside the bias.
    assert np.abs(roomy.dequantize() - weight.dequantize())[0].max() <= roomy.scale[0] / 2
    assert with_room_for_bias(weight_of([0.1, 0.01]), bias, step).scale.tolist() == pytest.approx([0.1, 0.01])


def test_a_trellis_is_given_up_where_steps_must_rise():
    values = trellis_values(np.tile(np.arange(-4, 4, dtype=np.int8), (8, 1)).T.copy(), 0)
    scale = np.full(8, 0.01, np.float32)
    weight = QuantizedWeight(values, scale, 0, 3, trellis=True)
    bias = np.full(8, 5.0)
    assert with_room_for_bias(weight, bias, 0.05) is weight
    scale[2] = 1e-9
    roomy = with_room_for_bias(weight, bias, 0.05)
    assert (roomy.bits, roomy.trellis) == (4, False)
    np.testing.assert_array_equal(np.delete(roomy.codes, 2, 0), np.delete(values, 2, 0))


def test_a_dead_channel_with_a_bias_answers_with_it(tmp_path):
    net, path = Net("conv"), tmp_path / "model.onnx"
    first = net.layers[0]
    stored = net.model.graph.initializers
    dead = stored[first.weight].const_value.numpy().copy()
    dead[3] *= 1e-9
    bias = stored[first.bias].const_value.numpy().copy()
    bias[3] = 4.0
    net = Net("conv", **{first.weight: dead, first.bias: bias})
    net.export({layer.name: 8 for layer in net.layers}, 8, path)
    check_layers(path, net.simulation, net.placement, net.feeds)
