"""The choice of channel scales, against the error that rounding then really makes."""

import numpy as np
import torch

from quant_core.calibration import Samples
from quant_core.executor import compile_model
from quant_core.quantizers.equalization.channel_scales import multiplied
from quant_core.quantizers.equalization.channel_statistics import channel_statistics
from quant_core.quantizers.equalization.scale_choice import as_reader, choose_scales
from quant_core.quantizers.grids.activation import dynamic_fake_quantize
from quant_core.quantizers.grids.weight import quantize_weight
from tests.quant_core.quantizers.equalization.test_channel_scales import build, joined


def product(outliers):
    """A product whose input has a few channels larger than the others."""
    model, layers, groups, _ = build(
        "g (float[n,7,32] x) => (float[n,7,24] y) { y = MatMul(x, w) }", {"w": (32, 24)}
    )
    x = np.random.default_rng(3).standard_normal((40, 7, 32)).astype(np.float32)
    x[..., :3] *= outliers
    return model, layers, groups, x


def scales_for(model, layers, groups, x, bits):
    (group,) = groups
    found = channel_statistics(compile_model(model), {"x": -1}, Samples(inputs={"x": x}), batch_size=9)["x"]
    np.testing.assert_allclose(found.low, np.minimum(x.min(1), 0))
    np.testing.assert_allclose(found.high, np.maximum(x.max(1), 0))
    np.testing.assert_allclose(found.square, np.square(x).mean((0, 1)), rtol=1e-5)
    weight = model.graph.initializers["w"].const_value.numpy()
    return choose_scales(group, [as_reader(layers[0], weight, found, bits=bits, dynamic=True)])


def output_error(layer, weight, x, factors, bits):
    scaled = multiplied(layer, weight, factors).astype(np.float32)
    codes = quantize_weight(scaled, bits, layer.axis).dequantize()
    total = 0.0
    for sample in x / factors.astype(np.float32):
        rounded = dynamic_fake_quantize(torch.from_numpy(sample)).numpy()
        total += float(np.square(rounded @ codes - sample @ scaled).sum())
    return total


def test_outliers_move_into_the_weights():
    model, layers, groups, x = product(30.0)
    weight = model.graph.initializers["w"].const_value.numpy()
    found = scales_for(model, layers, groups, x, 8)
    assert found is not None
    assert found.values[:3].min() > 2 * found.values[3:].max()
    np.testing.assert_allclose(np.log(found.values).mean(), 0, atol=5e-4)  # in float16
    plain, smooth = (output_error(layers[0], weight, x, s, 8) for s in (np.ones(32), found.values))
    assert smooth < 0.2 * plain


def test_less_is_moved_where_weights_have_few_bits():
    model, layers, groups, x = product(30.0)
    spread = {}
    for bits in (3, 8):
        found = scales_for(model, layers, groups, x, bits)
        spread[bits] = 1.0 if found is None else found.values.max() / found.values.min()
    assert spread[3] < spread[8]


def test_even_channels_are_left_alone():
    assert scales_for(*product(1.0), 8) is None


def rarely(samples, seed):
    """Channels that are silent on most samples, and reach as far as the others where they are not."""
    rng = np.random.default_rng(seed)
    x = np.abs(rng.standard_normal((samples, 7, 32)))
    return (x * np.where(rng.random((samples, 1, 32)) < 0.03, 1, 0.01)).astype(np.float32)


def test_channels_that_are_silent_on_most_samples_may_speak_on_others():
    model, layers, groups, _ = product(1.0)
    weight = model.graph.initializers["w"].const_value.numpy()
    found = scales_for(model, layers, groups, rarely(40, 0), 8)
    factors = np.ones(32) if found is None else found.values
    plain, scaled = (output_error(layers[0], weight, rarely(400, 1), s, 8) for s in (np.ones(32), factors))
    assert scaled < 1.05 * plain


def test_a_part_that_reaches_far_comes_down_to_the_others_beside_it():
    model, layers, groups, _ = joined()
    (group,) = (group for group in groups if group.parts)
    x = np.random.default_rng(3).standard_normal((40, 8, 6, 6)).astype(np.float32)
    x[:, 4:] *= 40
    layer = next(layer for layer in layers if layer.name == group.readers[0])
    program = compile_model(model)
    found = channel_statistics(program, {"j": 1}, Samples(inputs={"j": x}), batch_size=9)["j"]
    weight = model.graph.initializers[layer.weight].const_value.numpy().copy()
    weight[:, 4:] /= 40
    scales = choose_scales(group, [as_reader(layer, weight, found, bits=8, dynamic=False)])
    assert scales is not None
    np.testing.assert_array_equal(scales.values[:4], 1)
    assert 10 < scales.values[4:].min() <= scales.values[4:].max() < 160


def test_channels_of_every_layer_kind_are_read():
    """The factor that undoes a channel's extent is found wherever the weight keeps its inputs."""
    for text, shapes in (
        ("g (float[n,4,6,6] x) => (float[n,3,6,6] y) { y = Conv<kernel_shape=[1,1]>(x, w) }", (3, 4, 1, 1)),
        (
            "g (float[n,4,6,6] x) => (float[n,8,6,6] y) { y = Conv<kernel_shape=[1,1], group=4>(x, w) }",
            (8, 1, 1, 1),
        ),
        (
            "g (float[n,4,6,6] x) => (float[n,3,6,6] y) { y = ConvTranspose<kernel_shape=[1,1]>(x, w) }",
            (4, 3, 1, 1),
        ),
        ("g (float[n,4] x) => (float[n,3] y) { y = Gemm<transB=1>(x, w) }", (3, 4)),
        ("g (float[n,4] x) => (float[n,3] y) { y = Gemm(x, w) }", (4, 3)),
    ):
        model, (layer,), _, x = build(text, {"w": shapes})
        weight = model.graph.initializers["w"].const_value.numpy()
        x[:, 2] *= 100
        samples = Samples(inputs={"x": x})
        found = channel_statistics(compile_model(model), {"x": 1}, samples, batch_size=5)["x"]
        assert found.extent.argmax() == 2
        reader = as_reader(layer, weight, found, bits=8, dynamic=False)
        by_channel = np.abs(reader.weight).sum((1, 3)).reshape(-1)
        doubled = multiplied(layer, weight, np.array([1.0, 1.0, 2.0, 1.0]))
        again = as_reader(layer, doubled, found, bits=8, dynamic=False)
        np.testing.assert_allclose(
            np.abs(again.weight).sum((1, 3)).reshape(-1), by_channel * [1, 1, 2, 1], rtol=1e-5
        )
