"""Files for GPUs keep the rules of TensorRT's explicit quantization, and compute what was simulated."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from quant_core.allocation.candidates import candidate_bits
from quant_core.errors import SpecError
from quant_core.export import predict_sizes, target_of, within_target
from quant_core.export.targets.gpu import ORT_CUDA, TENSORRT, tensorrt
from quant_core.spec import FLOAT_BITS, QuantizeSpec, WeightOptions
from quant_core.verification import check_layers, open_session
from tests.quant_core.export.networks import NETS, Net

RESIDUAL = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[n,8,6,6] x) => (float[n,8,6,6] y) {
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
        r = Relu(a)
        b = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r, w2, b2)
        s = Add(b, x)
        t = Relu(s)
        c = Conv<kernel_shape=[1,1]>(t, w3)
        d = Conv<kernel_shape=[1,1]>(t, w4)
        e = Add(c, d)
        f = Relu(e)
        y = Conv<kernel_shape=[1,1]>(f, w5)
    }"""
SHAPES = {
    "w1": (8, 8, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,),
    "w3": (8, 8, 1, 1), "w4": (8, 8, 1, 1), "w5": (8, 8, 1, 1),
}  # fmt: skip
WIDE = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[n,5,64] x) => (float[n,5,32] y) {
        a = MatMul(x, w1)
        r = Gelu(a)
        m = MatMul(r, w2)
        y = Add(m, b2)
    }"""
TALL = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[n,64] x) => (float[n,32] y) {
        a = Gemm<transB=1>(x, w1, b1)
        r = Relu(a)
        y = Gemm(r, w2, b2)
    }"""
MOVED = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[n,8,6,6] x) => (float[n,8,3,3] y, float[n,k] z) {
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
        r = Relu(a)
        m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
        t = Transpose<perm=[0,1,3,2]>(m)
        u = Sigmoid(t)
        b = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(r, w2, b2)
        y = Add(b, u)
        z = Reshape(r, flat)
    }"""
EXTRA = {
    "moved": (MOVED, {name: SHAPES[name] for name in ("w1", "b1", "w2", "b2")}, set(), {"flat": [0, -1]}),
    "residual": (RESIDUAL, SHAPES, set(), {}),
    "wide": (WIDE, {"w1": (64, 48), "w2": (48, 32), "b2": (32,)}, set(), {}),
    "tall": (TALL, {"w1": (48, 64), "b1": (48,), "w2": (48, 32), "b2": (32,)}, set(), {}),
}
ALL = {**NETS, **EXTRA}


def widths(net, target, wanted, activation_bits=8):
    """The wanted width where the target has it, else float."""
    return {
        layer.name: wanted if target.form(layer, net.model, wanted, activation_bits) else FLOAT_BITS
        for layer in net.layers
    }


def run_literally(net, path):
    """Run the graph as it is written: no fusion of quantization, no rounding of our own float operators."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options).run(["y"], net.feeds)[0]


def break_rules(file, layers):
    """Everything in a file that TensorRT would refuse or run slower than it could."""
    graph, problems = file.graph, []
    makers = {output: node for node in graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    readers = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    nodes = {use.node for layer in layers for use in layer.uses}
    for node in graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            if len(node.input) > 2 and numpy_helper.to_array(stored[node.input[2]]).astype(int).any():
                problems.append("zero point")
            if node.input[1] not in stored:
                problems.append("computed scale")
            constant = node.input[0] in stored
            if not constant and numpy_helper.to_array(stored[node.input[1]]).ndim:
                problems.append("activations with a scale a channel")
            kind = stored[node.input[0]].data_type if constant else None
            if constant and kind not in {TensorProto.INT8, TensorProto.INT4}:
                problems.append("weight type")
            if node.op_type == "QuantizeLinear":
                zero = stored[node.input[2]]
                if zero.data_type != TensorProto.INT8:
                    problems.append("unsigned activations")
                maker = makers.get(node.input[0])
                if maker is not None and maker.name in nodes:
                    following = [n.op_type for n in readers[maker.output[0]]]
                    if "Relu" in following:
                        problems.append("rounding before Relu")
                if [n.op_type for n in readers[node.output[0]]] != ["DequantizeLinear"]:
                    problems.append("Q without DQ")
        if node.op_type in {"Cast", "DynamicQuantizeLinear", "MatMulInteger"} or node.domain:
            problems.append(node.op_type)
        if node.name in nodes and node.op_type in {"Conv", "Gemm", "MatMul"}:
            weight = makers.get(node.input[1])
            if weight is None:
                continue
            four = stored[weight.input[0]].data_type == TensorProto.INT4
            source = makers.get(node.input[0])
            rounded = source is not None and source.op_type == "DequantizeLinear"
            if not four and not rounded:
                problems.append("8-bit weight with float input")
            if four and node.op_type == "Conv":
                problems.append("4-bit convolution")
            if len(node.input) > 2 and node.input[2] and node.input[2] not in stored:
                problems.append("rounded bias")
    return problems


@pytest.mark.parametrize("target", [TENSORRT, ORT_CUDA], ids=lambda target: target.name)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ALL)
def test_files_keep_the_rules_and_equal_the_simulation(name, bits, target, tmp_path):
    net, path = Net(ALL[name]), tmp_path / "model.onnx"
    plan = widths(net, target, bits)
    _, file, simulated = net.export(plan, 8, path, target)
    assert break_rules(file, net.layers) == []
    assert [(entry.domain, entry.version) for entry in file.opset_import] == [("", 21)]
    tolerance = (0.03 if bits == 8 else 1e-5) * np.abs(simulated).max()
    assert np.abs(run_literally(net, path) - simulated).max() <= tolerance
    onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )  # its rewrites for CPUs take it, too
    sizes = predict_sizes(
        net.model, net.layers, {layer: (width,) for layer, width in plan.items()}, 8, target
    )
    assert abs(file.ByteSize() - sizes.total(plan)) <= max(0.02 * file.ByteSize(), 96)


def test_shortcuts_are_rounded_and_what_the_kernel_adds_is_not(tmp_path):
    net = Net(EXTRA["residual"])
    placement, _, _ = net.export(widths(net, TENSORRT, 8), 8, tmp_path / "model.onnx", TENSORRT)
    # x, r, t and f are read by convolutions; c is the shortcut of the second addition, x that of the first.
    assert placement.points == ("x", "r", "t", "c", "f")
    assert not placement.absorbed
    assert not placement.aliases


def test_four_bit_blocks_are_four_bits_in_the_file(tmp_path):
    net = Net(EXTRA["wide"])
    _, file, _ = net.export(widths(net, ORT_CUDA, 4), 8, tmp_path / "model.onnx", ORT_CUDA)
    stored = {tensor.name: tensor for tensor in file.graph.initializer}
    assert [stored[name].data_type for name in ("w1", "w2")] == [TensorProto.INT4] * 2
    reads = [node for node in file.graph.node if node.op_type == "DequantizeLinear"]
    sizes = [onnx.helper.get_node_attr_value(node, "block_size") for node in reads]
    assert sizes == [64, 16]
    assert [tuple(stored[node.input[1]].dims) for node in reads] == [(1, 48), (3, 32)]


@pytest.mark.parametrize("bits", [2, 3, 5, 6])
def test_widths_without_a_kernel_have_no_form(bits):
    net = Net(EXTRA["wide"])
    assert all(TENSORRT.form(layer, net.model, bits, 8) is None for layer in net.layers)


FP8 = WeightOptions(weight_format="fp8_e4m3")
NVFP4 = WeightOptions(weight_format="nvfp4")


@pytest.mark.parametrize("name", ALL)
def test_float8_on_both_sides_equals_the_simulation(name, tmp_path):
    net, path, target = Net(ALL[name]), tmp_path / "model.onnx", tensorrt("fp8_e4m3")
    plan = {
        layer.name: 8 if target.form(layer, net.model, 8, 8, FP8.grid(8)) else FLOAT_BITS
        for layer in net.layers
    }
    placement, file, simulated = net.export(plan, 8, path, target, FP8)
    kinds = {tensor.name: tensor.data_type for tensor in file.graph.initializer}
    for node in file.graph.node:
        if node.op_type == "QuantizeLinear":
            assert kinds[node.input[2]] == TensorProto.FLOAT8E4M3FN
        if node.op_type == "DequantizeLinear" and node.input[0] in kinds:
            assert kinds[node.input[0]] == TensorProto.FLOAT8E4M3FN
    assert not {"Cast", "DynamicQuantizeLinear"}.intersection(node.op_type for node in file.graph.node)
    check_layers(path, net.simulation, placement, net.feeds, literal=True)
    assert np.abs(run_literally(net, path) - simulated).max() <= 0.1 * np.abs(simulated).max()
    sizes = predict_sizes(
        net.model, net.layers, {layer: (bits,) for layer, bits in plan.items()}, 8, target, FP8
    )
    assert abs(file.ByteSize() - sizes.total(plan)) <= max(0.02 * file.ByteSize(), 96)


@pytest.mark.parametrize("name", ["wide", "tall"])
def test_nvfp4_has_two_levels_of_scales_and_equals_ml_dtypes(name, tmp_path):
    net, path, target = Net(ALL[name]), tmp_path / "model.onnx", tensorrt("nvfp4")
    plan = {layer.name: 4 for layer in net.layers}
    _, file, simulated = net.export(plan, 8, path, target, NVFP4)
    assert [(entry.domain, entry.version) for entry in file.opset_import] == [("", 23)]
    stored = {tensor.name: tensor for tensor in file.graph.initializer}
    makers = {node.output[0]: node for node in file.graph.node}
    for layer in net.layers:
        weights = next(node for node in file.graph.node if layer.weight in node.input)
        scales = makers[weights.input[1]]
        kinds = [stored[name].data_type for name in (layer.weight, *scales.input)]
        assert kinds == [TensorProto.FLOAT4E2M1, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT]
        axis, size = (onnx.helper.get_node_attr_value(weights, name) for name in ("axis", "block_size"))
        codes, eighths = (numpy_helper.to_array(stored[name]) for name in (layer.weight, scales.input[0]))
        factor = numpy_helper.to_array(stored[scales.input[1]])
        assert size == 16
        assert codes.shape[axis] == 16 * eighths.shape[axis]
        by_hand = codes.astype(np.float32) * np.repeat(eighths.astype(np.float32) * factor, 16, axis)
        np.testing.assert_array_equal(by_hand, net.weights[layer.name].dequantize())
    here = ReferenceEvaluator(file).run(["y"], net.feeds)[0]
    assert np.abs(here - simulated).max() <= 1e-5 * np.abs(simulated).max()
    ours = open_session(path, literal=True).run(["y"], net.feeds)[0]
    assert np.abs(ours - simulated).max() <= 1e-5 * np.abs(simulated).max()
    sizes = predict_sizes(net.model, net.layers, dict.fromkeys(plan, (4,)), 8, target, NVFP4)
    assert abs(file.ByteSize() - sizes.total(plan)) <= max(0.02 * file.ByteSize(), 96)


def test_integers_come_in_the_blocks_that_tensorrt_knows():
    net = Net(EXTRA["tall"])
    first, second = net.layers  # 64 and 48 inputs
    for size, forms in ((64, ("weight_only", None)), (16, (None, None)), (32, (None, None))):
        grid = WeightOptions(granularity="block", block_size=size).grid(4)
        found = tuple(TENSORRT.form(layer, net.model, 4, 8, grid) for layer in (first, second))
        assert found == forms
    grid = WeightOptions(granularity="block", block_size=16).grid(4)
    assert ORT_CUDA.form(second, net.model, 4, 8, grid) == "weight_only"


@pytest.mark.parametrize("weights", ["mxfp4", "fp8_e5m2", "nvfp4", "fp8_e4m3"])
def test_formats_without_a_scheme_are_refused_with_those_that_have_one(weights):
    net = Net(EXTRA["wide"])
    for name in ("tensorrt", "ort-cuda"):
        spec = QuantizeSpec(target=name, weight_format=weights, weight_bits=(4, 8))
        target = target_of(spec)
        if weights in target.formats:
            assert name == "tensorrt"
            continue
        with pytest.raises(SpecError, match=f"{name} has no kernel .* in {weights}") as caught:
            within_target(candidate_bits(net.layers, spec), net.layers, net.model, spec, target)
        if name == "tensorrt":
            assert "fp8_e4m3 or nvfp4" in caught.value.remedy
