"""Steps, biases and channel factors in 16 bits: what the file holds, what onnxruntime makes of it, what it weighs."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.codes import CorrectedBias
from quant_core.export import export_model, place, predict_sizes
from quant_core.export.storage.half_types import store_spread
from quant_core.export.targets.gpu import ORT_CUDA
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import portable
from quant_core.quantizers import quantize_weight
from quant_core.quantizers.bias_correction.input_means import find_bias
from quant_core.spec import WeightOptions
from tests.quant_core.export.networks import HEADER, Net, optimized_operators

WIDE = (
    HEADER
    + """g (float[n,8,6,6] x) => (float[n,48] y) {
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
        r = Relu(a)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        y = Gemm<transB=1>(f, w2, b2)
    }""",
    {"w1": (64, 8, 3, 3), "b1": (64,), "w2": (48, 64), "b2": (48,)},
    {},
    {},
)


@pytest.fixture
def net():
    return Net(WIDE)


def made(net, target, path, bits=4):
    """A file with biases as correction leaves them."""
    options = WeightOptions()
    weights = {}
    for layer in net.layers:
        grid, bias = options.grid(bits), find_bias(net.model, layer)
        array = net.model.graph.initializers[layer.weight].const_value.numpy()
        rounded = quantize_weight(array, bits, layer.step_axis(grid), grid)
        weights[layer.name] = replace(rounded, bias=CorrectedBias.stored(bias.name, bias.values))
    plan = {layer.name: bits for layer in net.layers}
    placement = place(net.model, net.layers, plan, 8, target)
    net.export(plan, 8, path, target, options)  # finds the grids of activations
    file = export_model(net.model, net.layers, weights, placement, net.grids, target)
    onnx.save(file, path)
    return file, weights


def test_steps_and_biases_take_two_bytes_and_are_what_they_were(net, tmp_path):
    path = tmp_path / "model.onnx"
    file, weights = made(net, ORT_CPU, path)
    stored = {tensor.name: tensor for tensor in file.graph.initializer}
    casts = {
        node.output[0]: numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
        for node in file.graph.node
        if node.op_type == "Cast"
        and stored.get(node.input[0], TensorProto()).data_type == TensorProto.FLOAT16
    }
    held = [values.tobytes() for values in casts.values()]
    for weight in weights.values():
        assert weight.scale.tobytes() in held
    first = weights[net.layers[0].name]
    np.testing.assert_array_equal(casts[first.bias.name], first.bias.values)
    # But for the steps of an integer bias, which are those of the input times those of the weight.
    floats = [t for t in stored.values() if t.data_type == TensorProto.FLOAT and len(t.raw_data) >= 128]
    assert len(floats) == 1
    sizes = predict_sizes(net.model, net.layers, {layer.name: (4,) for layer in net.layers}, 8)
    assert abs(file.ByteSize() - sizes.total({layer.name: 4 for layer in net.layers})) <= 30


def test_nothing_is_cast_at_run_time(net, tmp_path):
    path = tmp_path / "model.onnx"
    made(net, ORT_CPU, path)
    operators = set(optimized_operators(path))
    assert "Cast" not in operators
    assert {"QLinearConv", "QGemm"} <= operators


@pytest.mark.parametrize("target", [ORT_CUDA, portable(21)], ids=["ort-cuda", "portable"])
def test_other_runtimes_get_floats(net, target, tmp_path):
    file, _ = made(net, target, tmp_path / "model.onnx", bits=8)
    assert "Cast" not in {node.op_type for node in file.graph.node}
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in file.graph.initializer}


def test_one_number_for_each_channel_is_stored_as_number_and_factors():
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.1, 10, (64, 1, 1)).astype(np.float16).astype(np.float32)
    gain, shift = np.float32(1.2345678), np.float32(-0.7654321)
    constants = {"gain": gain * shares, "shift": shift * shares, "other": shares + np.float32(1e-5)}
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["a"]),
        helper.make_node("Add", ["a", "shift"], ["b"]),
        helper.make_node("Mul", ["b", "other"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 64, 3, 3]) for n in "xy"]
    graph = helper.make_graph(
        nodes, "g", values[:1], values[1:], [numpy_helper.from_array(a, n) for n, a in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    feeds = {"x": rng.standard_normal((2, 64, 3, 3)).astype(np.float32)}

    def answer():
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, feeds)[0]

    expected, before = answer(), model.ByteSize()
    store_spread(model, {"gain": (gain, shares), "shift": (shift, shares), "other": (np.float32(1), shares)})
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(answer(), expected)
    kept = {tensor.name for tensor in model.graph.initializer}
    assert "other" in kept  # which is no product of that number
    assert kept.isdisjoint({"gain", "shift"})
    halves = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16]
    assert [len(t.raw_data) for t in halves] == [128]  # both share their factors
    assert model.ByteSize() < before - 250
