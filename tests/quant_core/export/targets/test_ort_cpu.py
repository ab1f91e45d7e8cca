"""Every form, operator and width: exported, run, on the kernel it was meant for, and equal to the simulation."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto

from quant_core.export import export_model, layer_form, place, predict_sizes
from quant_core.ingest import find_layers, normalise
from quant_core.ingest.macs import with_shapes
from quant_core.spec import FLOAT_BITS
from quant_core.spec.bits import WIDE_BITS
from quant_core.verification import INT8_OPERATORS, kernels
from tests.quant_core.export.networks import HEADER, NETS, Net, optimized, parse

WIDTHS = [2, 3, 4, 5, 6, 8]


@pytest.mark.parametrize("activation_bits", [8, WIDE_BITS, FLOAT_BITS])
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("name", NETS)
def test_file_equals_simulation_on_the_intended_kernels(name, bits, activation_bits, tmp_path):
    net, path = Net(name), tmp_path / "model.onnx"
    placement, file, simulated = net.export({layer.name: bits for layer in net.layers}, activation_bits, path)
    returned = net.run(path)
    scale = np.abs(simulated).max()
    # One step of an 8-bit grid may round the other way; weights alone leave only float rounding.
    tolerance = {8: 0.03, WIDE_BITS: 3e-4, FLOAT_BITS: 1e-5}[activation_bits]
    assert np.abs(returned - simulated).max() <= tolerance * scale
    found = kernels(path, net.layers)
    if activation_bits == 8:
        assert set(found.values()) <= net.kernels
    for layer in net.layers:
        integer = found[layer.name] in INT8_OPERATORS
        assert integer == (placement.forms[layer.name] in {"static", "dynamic"}), (layer.name, found)
    sizes = predict_sizes(
        net.model, net.layers, {layer.name: (bits,) for layer in net.layers}, activation_bits
    )
    predicted = sizes.total({layer.name: bits for layer in net.layers})
    assert abs(file.ByteSize() - predicted) <= max(0.02 * predicted, 96)


@pytest.mark.parametrize("name", NETS)
def test_layers_kept_float_are_float_and_exact_between_rounded_ones(name, tmp_path):
    net, path = Net(name), tmp_path / "model.onnx"
    for kept in net.layers:
        bits = {layer.name: FLOAT_BITS if layer is kept else 8 for layer in net.layers}
        _, _, simulated = net.export(bits, 8, path)
        assert np.abs(net.run(path) - simulated).max() <= 0.03 * np.abs(simulated).max()
        assert kernels(path, net.layers)[kept.name] not in INT8_OPERATORS
        graph = optimized(path)
        scales = {array.name for array in graph.initializer if array.data_type == TensorProto.INT8}
        # onnxruntime quantizes unguarded float weights per tensor: a DequantizeLinear would feed the operator.
        dequantized = {
            node.output[0]
            for node in graph.node
            if node.op_type == "DequantizeLinear" and node.input[0] in scales
        }
        assert not any(
            node.input[1] in dequantized for node in graph.node if node.op_type in {"Conv", "FusedConv"}
        )


@pytest.mark.parametrize(("own", "rest"), [(8, FLOAT_BITS), (FLOAT_BITS, 8), (WIDE_BITS, 8)])
@pytest.mark.parametrize("name", NETS)
def test_activation_bits_of_one_layer(name, own, rest, tmp_path):
    net, path = Net(name), tmp_path / "model.onnx"
    found_layers = net.layers
    for chosen in found_layers:
        net.layers = tuple(
            replace(layer, activation_bits=own) if layer is chosen else layer for layer in found_layers
        )
        bits = {layer.name: 4 for layer in net.layers}
        placement, file, simulated = net.export(bits, rest, path)
        assert np.abs(net.run(path) - simulated).max() <= 0.03 * np.abs(simulated).max()
        found = kernels(path, net.layers)
        for layer in net.layers:
            wanted = own if layer.name == chosen.name else rest
            form = layer_form(layer, net.model, 4, rest)
            assert (
                form
                == placement.forms[layer.name]
                == layer_form(replace(layer, activation_bits=None), net.model, 4, wanted)
            )
            assert (found[layer.name] in INT8_OPERATORS) == (form in {"static", "dynamic"}), (
                layer.name,
                found,
            )
        predicted = predict_sizes(net.model, net.layers, dict.fromkeys(bits, (4,)), rest).total(bits)
        assert abs(file.ByteSize() - predicted) <= max(0.02 * predicted, 96)


@pytest.mark.parametrize("name", NETS)
def test_sixteen_bits_are_stored_and_change_next_to_nothing(name, tmp_path):
    net, path = Net(name), tmp_path / "model.onnx"
    bits = {layer.name: 8 for layer in net.layers}
    _, _, exact = net.export(bits, FLOAT_BITS, path)
    placement, file, simulated = net.export(bits, WIDE_BITS, path)
    wide = [name for name, form in placement.forms.items() if form == "wide"]
    codes = [
        tensor.data_type
        for node in file.graph.node
        if node.op_type == "QuantizeLinear"
        for tensor in file.graph.initializer
        if tensor.name == node.input[2]
    ]
    assert len(codes) == len(placement.wide)
    assert set(codes) <= {TensorProto.UINT16}
    assert bool(wide) == bool(codes)
    # 65,535 steps of each tensor's range instead of 255. The largest errors are of values beyond the range.
    _, _, rough = net.export(bits, 8, path)
    if wide and np.abs(rough - exact).max() > 0:
        assert np.median(np.abs(simulated - exact)) < 0.02 * np.median(np.abs(rough - exact))


def test_a_float_network_comes_out_unchanged(tmp_path):
    net, path = Net("conv"), tmp_path / "model.onnx"
    net.export({layer.name: FLOAT_BITS for layer in net.layers}, 8, path)
    tensors = {name: torch.from_numpy(array) for name, array in net.feeds.items()}
    with torch.no_grad():
        expected = net.program.evaluate(tensors)["y"].numpy()
    np.testing.assert_allclose(net.run(path), expected, rtol=1e-4, atol=1e-5)


def test_four_bits_cost_half_a_byte_a_weight():
    net = Net("conv")
    candidates = {layer.name: (4, 8) for layer in net.layers}
    sizes = predict_sizes(net.model, net.layers, candidates, 8)
    for layer in net.layers:
        saved = sizes.layers[layer.name][8] - sizes.layers[layer.name][4]
        assert layer.parameters / 2 - 40 <= saved <= layer.parameters / 2 + 4


def test_interface_and_metadata_survive(tmp_path):
    proto = parse(*[NETS["perceptron"][0]], **NETS["perceptron"][1])
    proto.metadata_props.add(key="author", value="somebody")
    model = normalise(ir.from_proto(proto))
    layers = find_layers(model)
    placement = place(model, layers, {layer.name: FLOAT_BITS for layer in layers}, 8)
    file = export_model(model, layers, {}, placement, {})
    assert [(p.key, p.value) for p in file.metadata_props] == [("author", "somebody")]
    for before, after in [(proto.graph.input, file.graph.input), (proto.graph.output, file.graph.output)]:
        assert [v.name for v in after] == [v.name for v in before]
        dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in after]
        assert dims == [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in before]


@pytest.mark.parametrize(
    ("weight", "group", "form"),
    [
        ((8, 4, 3, 3), 1, "static"),
        ((48, 3, 3, 3), 1, "static"),
        ((8, 3, 1, 1), 1, "static"),
        ((8, 3, 5, 5), 1, "weight_only"),
        ((16, 3, 3, 3), 1, "weight_only"),
        ((32, 3, 3, 3), 1, "static"),
        ((32, 1, 7, 7), 1, "weight_only"),
        ((80, 1, 3, 3), 1, "static"),
        ((8, 1, 1, 1), 1, "static"),
        ((32, 16, 3, 3), 2, "static"),
        ((64, 1, 3, 3), 64, "static"),
        ((32, 1, 3, 3, 3), 32, "static"),
        ((16, 16, 3, 3, 3), 1, "static"),
        ((32, 8, 3, 3), 4, "weight_only"),
        ((48, 12, 3, 3), 4, "static"),
        ((64, 1, 3, 3), 32, "weight_only"),
        ((16, 1, 3, 3, 3), 1, "weight_only"),
        ((2, 16, 1, 1, 1), 1, "weight_only"),
    ],
)
def test_convolutions_of_few_channels_stay_in_float_unless_asked(weight, group, form):
    spatial = ",".join("5" * (len(weight) - 2))
    kernel = list(weight[2:])
    text = f"""{HEADER} g (float[n,{weight[1] * group},{spatial}] x) => (float[n,c,{spatial}] y) {{
        y = Conv<kernel_shape={kernel}, group={group}, pads={[size // 2 for size in kernel] * 2}>(x, w)
    }}"""
    model = normalise(ir.from_proto(parse(text, w=weight)))
    (layer,) = find_layers(model)
    assert layer_form(layer, model, 4, 8) == form
    assert layer_form(replace(layer, activation_bits=8), model, 4, 8) == "static"
    assert layer_form(layer, model, 4, FLOAT_BITS) == "weight_only"


@pytest.mark.parametrize(("side", "form"), [(8, "static"), (12, "static"), (16, "weight_only")])
def test_groups_of_eight_channels_run_in_integers_on_small_planes(side, form):
    text = f"""{HEADER} g (float[n,32,{side},{side}] x) => (float[n,32,{side},{side}] y) {{
        y = Conv<kernel_shape=[3,3], group=4, pads=[1,1,1,1]>(x, w)
    }}"""
    model = normalise(ir.from_proto(parse(text, w=(32, 8, 3, 3))))
    shapes = dict.fromkeys(("x", "y"), (3, 32, side, side))
    (layer,) = with_shapes(find_layers(model), model, shapes, 3)
    assert layer_form(layer, model, 4, 8) == form


@pytest.mark.parametrize("behind", ["y = Relu(a)", "r = Relu(a) y = MaxPool<kernel_shape=[2,2]>(r)"])
@pytest.mark.parametrize(
    ("channels", "outputs", "in_float"),
    [(3, 16, True), (3, 24, False), (1, 32, True), (1, 64, False), (2, 32, True), (4, 16, False)],
)
def test_small_stems_run_in_float(channels, outputs, in_float, behind):
    text = f"""{HEADER} g (float[n,{channels},8,8] x) => (float[n,c,h,w] y) {{
        a = Conv<kernel_shape=[3,3]>(x, w)
        {behind}
    }}"""
    model = normalise(ir.from_proto(parse(text, w=(outputs, channels, 3, 3))))
    (layer,) = find_layers(model)
    assert layer_form(layer, model, 4, 8) == ("weight_only" if in_float else "static")
    assert layer_form(replace(layer, first=False), model, 4, 8) == "static"


@pytest.mark.parametrize(
    ("body", "form"),
    [
        ("p = ReduceMean<keepdims=0>(c, axes)", "static"),
        ("r = Flatten<axis=1>(c) g = Gemm(r, v) p = Relu(g)", "static"),
        ("m = MatMul(c, w) p = ReduceMean<keepdims=0>(m, axes)", "dynamic"),
        ("m = MatMul(c, w) s = Add(c, m) p = ReduceMean<keepdims=0>(s, axes)", "dynamic"),
    ],
    ids=["convolution", "products behind it", "product", "residual sum"],
)
def test_products_behind_a_matmul_are_rounded_at_run_time(body, form):
    """As the last one of a vision transformer: what it reads was computed in float."""
    text = f"""{HEADER} g (float[n,8,4,4] x) => (float[n,5] y) <int64[2] axes = {{2, 3}}> {{
        c = Conv(x, k) {body} y = Gemm(p, u)
    }}"""
    proto = parse(text, k=(8, 8, 1, 1), w=(4, 4), v=(128, 8), u=(8, 5))
    model = normalise(ir.from_proto(proto))
    layers = find_layers(model)
    assert {layer_form(layer, model, 8, 8) for layer in layers if layer.op == "Gemm"} == {form}


def test_small_tables_are_unpacked_at_load(tmp_path):
    """Of large ones rows of codes are looked up, which are scaled as they come."""
    net = Net(
        (
            HEADER
            + """g (int64[n,7] i) => (float[n,7,64] y) {
                a = Gather(small, i) b = Gather(large, i) s = Add(a, b) y = Tanh(s)
            }""",
            {"small": (16384, 64), "large": (16385, 64)},
            set(),
            {},
        )
    )
    path = tmp_path / "model.onnx"
    _, file, simulated = net.export({layer.name: 4 for layer in net.layers}, 8, path)
    assert np.abs(net.run(path) - simulated).max() <= 1e-6
    assert file.ByteSize() < 1.02 * sum(layer.parameters / 2 + layer.shape[0] * 2 for layer in net.layers)
    graph = optimized(path)
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    looked_up = [types[node.input[0]] for node in graph.node if node.op_type == "Gather"]
    assert sorted(looked_up) == [
        TensorProto.FLOAT,
        TensorProto.FLOAT,
        TensorProto.INT8,
    ]  # of codes and of steps
