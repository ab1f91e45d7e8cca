"""Each layer of a file is compared with our own arithmetic, and a layer that differs is named."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quant_core.errors import InternalError
from quant_core.export.targets.gpu import TENSORRT
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import portable
from quant_core.spec import FLOAT_BITS, WeightGrid, WeightOptions
from quant_core.verification.differences import sqnr_db
from quant_core.verification.layer_check import check_layers
from quant_core.verification.layer_runs import layer_runs
from quant_core.verification.layer_sqnr import layer_sqnr
from tests.quant_core.export.networks import HEADER, NETS, Net


def exported(name, bits, path, target=ORT_CPU, activation_bits=8):
    net = Net(name)
    plan = {
        layer.name: bits if target.form(layer, net.model, bits, activation_bits, WeightGrid()) else FLOAT_BITS
        for layer in net.layers
    }
    net.export(plan, activation_bits, path, target)
    return net


def check(net, path, **options):
    return check_layers(path, net.simulation, net.placement, net.feeds, **options)


@pytest.mark.parametrize("target", [ORT_CPU, TENSORRT, portable(18)], ids=lambda target: target.name)
@pytest.mark.parametrize("activation_bits", [8, FLOAT_BITS])
@pytest.mark.parametrize("name", NETS)
def test_every_layer_computes_what_it_was_meant_to(name, activation_bits, target, tmp_path):
    net = exported(name, 8, tmp_path / "model.onnx", target, activation_bits)
    check(net, tmp_path / "model.onnx", literal=not target.runs_here)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("activation_bits", [8, FLOAT_BITS])
@pytest.mark.parametrize("name", NETS)
def test_a_layer_with_other_codes_is_named(name, activation_bits, tmp_path):
    path = tmp_path / "model.onnx"
    net = exported(name, 8, path, activation_bits=activation_bits)
    good = onnx.load(path)
    for layer in net.layers:
        bad = onnx.ModelProto()
        bad.CopyFrom(good)
        (stored,) = (tensor for tensor in bad.graph.initializer if tensor.name == layer.weight)
        codes = numpy_helper.to_array(stored)
        stored.CopyFrom(numpy_helper.from_array((-codes).astype(np.int8), stored.name))
        onnx.save(bad, path)
        with pytest.raises(InternalError, match=f"layer {layer.name} "):
            check(net, path)


@pytest.mark.parametrize("target", [ORT_CPU, portable(18)], ids=lambda target: target.name)
def test_a_layer_that_reads_repeated_places_of_codes_is_compared(target, tmp_path):
    conv = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>"
    text = f"""{HEADER} g (float[n,4,6,6] x) => (float[n,4,h,k] y) {{
        a = {conv}(x, w) p = Resize<coordinate_transformation_mode="asymmetric", nearest_mode="floor">(a, , scales)
        y = {conv}(p, u)
    }}"""
    scales = np.array([1, 1, 2, 2], np.float32)
    net = Net((text, {"w": (4, 4, 3, 3), "u": (4, 4, 3, 3), "scales": scales.shape}, {}, {}), scales=scales)
    net.export({layer.name: 8 for layer in net.layers}, 8, tmp_path / "model.onnx", target)
    assert net.placement.repeated
    check(net, tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["perceptron", "transformer"])
def test_one_wrong_code_is_found_beside_a_channel_of_large_weights(name, tmp_path):
    path = tmp_path / "model.onnx"
    weight = np.random.default_rng(0).standard_normal(NETS[name][1]["w2"]).astype(np.float32)
    weight[:, 0] *= 100
    net = Net(name, w2=weight)
    net.export(dict.fromkeys((layer.name for layer in net.layers), 8), 8, path)
    check(net, path)
    bad = onnx.load(path)
    (stored,) = (tensor for tensor in bad.graph.initializer if tensor.name == "w2")
    codes = numpy_helper.to_array(stored).copy()
    codes[3, 2] ^= 64
    stored.CopyFrom(numpy_helper.from_array(codes, stored.name))
    onnx.save(bad, path)
    (layer,) = (layer for layer in net.layers if layer.weight == "w2")
    with pytest.raises(InternalError, match=f"layer {layer.name} "):
        check(net, path)


def test_a_bias_that_is_one_step_off_is_found(tmp_path):
    path = tmp_path / "model.onnx"
    net = exported("conv", 8, path)
    bad, first = onnx.load(path), net.layers[0]
    step = 3 * net.grids["r"].scale
    (stored,) = (tensor for tensor in bad.graph.initializer if tensor.name == first.bias)
    stored.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored) + np.float32(step), stored.name))
    onnx.save(bad, path)
    with pytest.raises(InternalError, match=f"layer {first.name} "):
        check(net, path)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("mean", [0, 100])
def test_blocks_of_weights_that_are_all_zero_leave_rounding(bits, mean, tmp_path):
    text = HEADER + "g (float[n,32] x) => (float[n,8] y) { y = MatMul(x, w1) }"
    net = Net((text, {"w1": (32, 8)}, set(), {}), w1=np.zeros((32, 8), np.float32))
    net.feeds["x"] = np.random.default_rng(0).normal(mean, 1, (200, 32)).astype(np.float32)
    options = WeightOptions(granularity="block", bias_correction=False)
    net.export({net.layers[0].name: bits}, 8, tmp_path / "model.onnx", options=options)
    assert np.abs(net.run(tmp_path / "model.onnx")).max() > 0  # zero points are taken off a sum
    check(net, tmp_path / "model.onnx")


def test_integer_biases_are_coarse_where_large_weights_cancel(tmp_path):
    """One channel takes two equal inputs apart: its bias counts in steps far above those of the output."""
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((16, 8, 3, 3)) / 10).astype(np.float32)
    weight[0], weight[0, 0], weight[0, 1] = 0, 4000, -4000
    net = Net("conv", w1=weight, b1=np.full(16, 0.3, np.float32))
    net.feeds["x"][:, 1] = net.feeds["x"][:, 0]
    net.export(dict.fromkeys((layer.name for layer in net.layers), 8), 8, tmp_path / "model.onnx")
    unit = net.grids["x"].scale * net.weights[net.layers[0].name].scale[0]
    assert abs(0.3 - unit * np.round(0.3 / unit)) > 2 * net.grids["r"].scale
    check(net, tmp_path / "model.onnx")


def noise(net, path, found=None):
    return layer_sqnr(net.program, net.simulation, net.placement, net.feeds, found or check(net, path))


@pytest.mark.parametrize("name", ["conv", "conv_output", "perceptron", "upsampler"])
def test_noise_at_the_last_layer_is_that_of_the_output(name, tmp_path):
    path = tmp_path / "model.onnx"
    net = exported(name, 4, path)
    plain = exported(name, FLOAT_BITS, tmp_path / "float.onnx").run(tmp_path / "float.onnx").astype(float)
    (last,) = (layer for layer in net.layers if "y" in layer.outputs)
    expected = sqnr_db(np.square(plain).sum(), np.square(net.run(path) - plain).sum())
    assert noise(net, path)[last.name].accumulated_db == pytest.approx(expected, abs=0.1)


def test_noise_of_a_layer_alone_is_that_of_its_rounding(tmp_path):
    path = tmp_path / "model.onnx"
    net = exported("perceptron", 4, path, activation_bits=FLOAT_BITS)
    found, x = noise(net, path), net.feeds["x"].astype(float)
    for layer in net.layers:
        stored = {name: value.const_value.numpy() for name, value in net.model.graph.initializers.items()}
        weight, bias = stored[layer.weight].astype(float), stored[layer.bias].astype(float)
        rounded = net.weights[layer.name].dequantize().astype(float)
        if layer.axis == 0:
            weight, rounded = weight.T, rounded.T
        y = x @ weight + bias
        expected = sqnr_db(np.square(y).sum(), np.square(x @ rounded - x @ weight).sum())
        assert found[layer.name].own_db == pytest.approx(expected, abs=0.01)
        x = np.maximum(y, 0)


def test_rows_that_only_the_rounded_network_has_are_not_compared(tmp_path):
    """As where rounding sends a mixture's expert other rows; the layer alone is given those of the float network."""
    path = tmp_path / "model.onnx"
    net = exported("perceptron", 4, path)
    found, before = dict(check(net, path)), noise(net, path)
    chosen = net.layers[0]
    (result,) = (each.result for each in layer_runs(net.model, [chosen], net.placement))
    found[result] = found[result][:-1]
    after = noise(net, path, found)
    assert after[chosen.name].accumulated_db is None
    assert after[chosen.name].own_db == before[chosen.name].own_db
    assert after[net.layers[1].name] == before[net.layers[1].name]
