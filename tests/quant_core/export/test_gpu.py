"""Files for GPUs keep the rules of TensorRT's explicit quantization, and compute what was simulated."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from quant_core.export import predict_sizes
from quant_core.export.gpu import ORT_CUDA, TENSORRT
from quant_core.spec import FLOAT_BITS
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
EXTRA = {
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
    _, file, _ = net.export(widths(net, TENSORRT, 4), 8, tmp_path / "model.onnx", TENSORRT)
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
