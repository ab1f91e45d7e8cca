"""Images and other inputs of odd channels, laid out for onnxruntime's direct integer kernel."""

from dataclasses import replace

import numpy as np
import pytest

from quant_core.export.kernels.input_layout import AS_IT_IS, InputLayout, input_layout, laid_out_time
from quant_core.export.kernels.times import integer_time
from quant_core.export.size.predict_sizes import predict_sizes
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.ingest.reading.quantized_parts import find_quantized_parts
from quant_core.spec import WeightOptions
from quant_core.verification.layer_check import check_layers
from tests.quant_core.export.networks import HEADER, Net, optimized

AS_GIVEN = replace(ORT_CPU, lays_out_inputs=False)


def net_of(image, shape, attributes):
    """A first layer, and one behind it that keeps what is between them in codes."""
    window = ",".join(map(str, shape[2:]))
    text = HEADER + (
        f"g (float[n,{image}] x) => (float[n,c,h,w] y) {{\n"
        f"a = Conv<kernel_shape=[{window}]{attributes}>(x, w1, b1)\n"
        "r = Relu(a)\ny = Conv<kernel_shape=[1,1]>(r, w2)\n}"
    )
    weights = {"w1": shape, "b1": (shape[0],), "w2": (4, shape[0], 1, 1)}
    return Net((text, weights, {"QLinearConv"}, {}))


def in_steps(step, around, beyond):
    return InputLayout(0, step, around, beyond)


@pytest.mark.parametrize(
    ("image", "shape", "attributes", "layout"),
    [
        ("3,16,16", (24, 3, 3, 3), ", strides=[2,2], pads=[1,1,1,1]", InputLayout(1)),
        ("3,17,12", (64, 3, 7, 7), ", strides=[2,2], pads=[3,3,3,3]", in_steps(2, (3, 3, 4, 3), (1, 1))),
        ("3,16,16", (24, 3, 5, 5), ", strides=[2,2], pads=[1,1,2,2]", in_steps(2, (1, 1, 3, 3), (1, 1))),
        ("3,16,16", (96, 3, 4, 4), ", strides=[4,4]", in_steps(4, (0, 0, 0, 0), (0, 0))),
        ("3,19,18", (96, 3, 4, 4), ", strides=[4,4]", in_steps(4, (0, 0, -3, -2), (0, 0))),
        ("3,15,15", (64, 3, 5, 3), ", strides=[2,2], pads=[2,1,2,1]", in_steps(2, (2, 1, 3, 2), (1, 1))),
        ("3,9,9", (32, 3, 3, 3), ", pads=[1,1,1,1]", InputLayout(1)),
        ("6,9,9", (32, 6, 3, 3), "", InputLayout(2)),
        ("3,t,t", (32, 3, 5, 5), ", strides=[2,2]", InputLayout(1)),
        ("3,16,16", (32, 3, 5, 5), ', strides=[2,2], auto_pad="SAME_UPPER"', InputLayout(1)),
        ("3,16,16", (32, 3, 5, 5), ", strides=[2,2], dilations=[2,2]", InputLayout(1)),
        ("3,16,16", (32, 3, 5, 5), ", strides=[2,1]", InputLayout(1)),
        ("4,9,9", (32, 4, 3, 3), "", AS_IT_IS),
        ("3,9,9", (28, 3, 3, 3), "", AS_IT_IS),  # some processors have no direct kernel for 28 outputs
        ("3,24,24", (64, 3, 8, 8), ", strides=[8,8]", AS_IT_IS),
        ("3,20,20", (32, 3, 7, 7), "", AS_IT_IS),
    ],
)
def test_the_layout_changes_no_answer(image, shape, attributes, layout, tmp_path):
    net = net_of(image, shape, attributes)
    assert input_layout(net.layers[0], net.model) == layout
    bits = {layer.name: 8 for layer in net.layers}
    net.export(bits, 8, tmp_path / "as_given.onnx", target=AS_GIVEN)
    _, file, _ = net.export(bits, 8, tmp_path / "model.onnx")
    np.testing.assert_array_equal(net.run(tmp_path / "model.onnx"), net.run(tmp_path / "as_given.onnx"))
    check_layers(tmp_path / "model.onnx", net.simulation, net.placement, net.feeds)
    operators = [node.op_type for node in file.graph.node]
    assert operators.count("SpaceToDepth") == (layout.step > 1)
    assert operators.count("QuantizeLinear") == 3  # the image is rounded once
    assert ("Pad" in operators) == bool(layout.zeros or any(layout.around) or any(layout.beyond))


@pytest.mark.parametrize(
    "options",
    [
        WeightOptions(),
        WeightOptions(granularity="tensor"),
        WeightOptions(symmetric=False),
    ],
    ids=["channel", "tensor", "asymmetric"],
)
@pytest.mark.parametrize("bits", [2, 3, 5])
def test_weights_of_every_form_are_laid_out_when_the_file_is_loaded(bits, options, tmp_path):
    net = net_of("3,16,16", (32, 3, 5, 5), ", strides=[2,2], pads=[2,2,2,2]")
    path, as_given = tmp_path / "model.onnx", tmp_path / "as_given.onnx"
    for file, target in ((path, ORT_CPU), (as_given, AS_GIVEN)):
        net.export({layer.name: bits for layer in net.layers}, 8, file, target=target, options=options)
    np.testing.assert_array_equal(net.run(path), net.run(as_given))
    graph = optimized(path)
    held = {tensor.name: tensor for tensor in graph.initializer}
    kernels = [node for node in graph.node if node.op_type == "QLinearConv"]
    assert list(held[kernels[0].input[3]].dims) == [32, 12, 3, 3]
    assert [node.op_type for node in graph.node].count("SpaceToDepth") == 1  # of the image


@pytest.mark.parametrize("stem", [(32, 3, 5, 5), (32, 3, 3, 3)])
def test_what_a_layout_takes_in_the_file_is_foretold(stem, tmp_path):
    net = net_of("3,64,64", stem, ", strides=[2,2]")
    sizes = predict_sizes(net.model, net.layers, {layer.name: {2, 4, 8} for layer in net.layers}, 8)
    for bits in (2, 4, 8):
        plan = {layer.name: bits for layer in net.layers}
        path = tmp_path / f"{bits}.onnx"
        net.export(plan, 8, path)
        assert abs(path.stat().st_size - sizes.total(plan)) <= 64


@pytest.mark.parametrize(
    ("shape", "attributes", "places", "measured"),
    [
        ((24, 3, 3, 3), ", strides=[2,2], pads=[1,1,1,1]", 112**2, 0.56),
        ((64, 3, 3, 3), ", pads=[1,1,1,1]", 224**2, 0.39),
        ((96, 3, 4, 4), ", strides=[4,4]", 56**2, 0.53),
        ((64, 3, 7, 7), ", strides=[2,2], pads=[3,3,3,3]", 112**2, 0.59),
    ],
    ids=str,
)
def test_a_layout_saves_the_share_of_time_that_was_measured(shape, attributes, places, measured):
    net = net_of("3,224,224", shape, attributes)
    written = places * shape[0]
    layer = replace(
        net.layers[0],
        macs=written * int(np.prod(shape[1:])),
        input_elements=3 * 224**2,
        output_elements=written,
    )
    assert 0.8 < laid_out_time(layer, net.model) / integer_time(layer) / measured < 1.25
    behind = net.layers[1]
    assert laid_out_time(behind, net.model) == integer_time(behind)


def test_what_a_part_rounds_that_was_quantized_already_stays_as_it_lies(tmp_path):
    text = HEADER + (
        """g (float[n,6,16,16] x) => (float[n,4,h,w] y) {
            s = Constant<value_float = 0.05>()  z = Constant<value = uint8 {128}>()
            q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)
            a = Conv<kernel_shape=[3,3]>(d, w1)
            y = Conv<kernel_shape=[1,1]>(a, w2)
        }"""
    )
    net = Net((text, {"w1": (32, 6, 3, 3), "w2": (4, 32, 1, 1)}, {"QLinearConv"}, {}))
    assert input_layout(net.layers[0], net.model) == AS_IT_IS
    _, file, _ = net.export({layer.name: 8 for layer in net.layers}, 8, tmp_path / "model.onnx")
    assert "Pad" not in {node.op_type for node in file.graph.node}
    candidates = {layer.name: {4, 8} for layer in net.layers}
    sizes, as_given = (
        predict_sizes(net.model, net.layers, candidates, 8, target) for target in (ORT_CPU, AS_GIVEN)
    )
    assert sizes == as_given


def test_what_is_no_image_of_the_caller_is_not_laid_out_in_steps():
    text = HEADER + (
        """g (float[n,3,16,16] x) => (float[n,4,h,w] y) {
            s = Mul(x, half)
            a = Conv<kernel_shape=[5,5], strides=[2,2]>(s, w1)
            y = Conv<kernel_shape=[1,1]>(a, w2)
        }"""
    )
    net = Net((text, {"w1": (32, 3, 5, 5), "w2": (4, 32, 1, 1)}, {"QLinearConv"}, {"half": 0.5}))
    assert input_layout(net.layers[0], net.model) == InputLayout(1)


def test_two_readers_of_an_image_share_its_layout(tmp_path):
    text = HEADER + (
        """g (float[n,3,9,9] x) => (float[n,4,h,w] y) {
            a = Conv<kernel_shape=[3,3]>(x, w1)
            b = Conv<kernel_shape=[3,3]>(x, w2)
            s = Add(a, b)
            y = Conv<kernel_shape=[1,1]>(s, w3)
        }"""
    )
    net = Net((text, {"w1": (32, 3, 3, 3), "w2": (32, 3, 3, 3), "w3": (4, 32, 1, 1)}, {"QLinearConv"}, {}))
    path = tmp_path / "model.onnx"
    _, file, _ = net.export({layer.name: 8 for layer in net.layers}, 8, path)
    as_given = tmp_path / "as_given.onnx"
    net.export({layer.name: 8 for layer in net.layers}, 8, as_given, target=AS_GIVEN)
    np.testing.assert_array_equal(net.run(path), net.run(as_given))
    assert [node.op_type for node in file.graph.node].count("Pad") == 3  # the image once, and two weights


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("window", [3, 5])
def test_what_a_file_holds_is_found_behind_the_layout(window, bits, tmp_path):
    net = net_of("3,16,16", (32, 3, window, window), ", strides=[2,2]")
    found = []
    for target in (ORT_CPU, AS_GIVEN):
        _, file, _ = net.export(
            {layer.name: bits for layer in net.layers}, 8, tmp_path / "m.onnx", target=target
        )
        found.append([part for part in find_quantized_parts(file) if part.form != "activations"])
    assert [replace(part, nodes=()) for part in found[0]] == [replace(part, nodes=()) for part in found[1]]
    assert [(part.op, part.form, part.bits) for part in found[0]] == [("Conv", "qdq", bits)] * 2
