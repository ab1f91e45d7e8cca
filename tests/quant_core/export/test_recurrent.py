"""Weights of LSTM, GRU and RNN are stored packed, unpacked when the file is loaded, and priced to the byte."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quant_core.errors import InternalError
from quant_core.export import predict_sizes
from quant_core.export.targets.gpu import ORT_CUDA, tensorrt
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import portable
from quant_core.spec import FLOAT_BITS, WeightOptions
from quant_core.verification import check_layers
from quant_core.verification.optimized_graph import kernels, optimized_graph
from tests.quant_core.export.networks import HEADER, Net

NET = (
    HEADER
    + """g (int64[n,t] ids, float[2,n,6] h) => (float[n,4] y) {
        e = Gather(table, ids)
        x = Transpose<perm=[1,0,2]>(e)
        a, ah, ac = LSTM<hidden_size=6, direction="bidirectional">(x, w1, r1, b1, , h, h)
        m = Transpose<perm=[0,2,1,3]>(a)
        k = Reshape(m, shape)
        , last = GRU<hidden_size=8, linear_before_reset=1>(k, w2, r2, b2)
        q = Transpose<perm=[1,0,2]>(last)
        z, = RNN<hidden_size=8>(q, w3, r3)
        v, = RNN<hidden_size=8>(q, w3, r4)
        s = Add(z, v)
        f = ReduceMean<keepdims=0>(s, axes)
        y = MatMul(f, head)
    }""",
    {
        "table": (20, 10), "w1": (2, 24, 10), "r1": (2, 24, 6), "b1": (2, 48), "w2": (1, 24, 12), "r2": (1, 24, 8),
        "b2": (1, 48), "w3": (1, 8, 8), "r3": (1, 8, 8), "r4": (1, 8, 8), "head": (8, 4),
    },
    set(),
    {"shape": [0, 0, 12], "axes": [0, 1]},
)  # fmt: skip
RECURRENT = {"LSTM", "GRU", "RNN"}
CASES = [
    *((ORT_CPU, bits, WeightOptions()) for bits in (2, 3, 6, 8)),
    (ORT_CPU, 4, WeightOptions(symmetric=False)),
    (ORT_CPU, 5, WeightOptions(granularity="tensor")),
    (ORT_CPU, 4, WeightOptions(granularity="block", block_size=16)),
    (ORT_CPU, 8, WeightOptions(weight_format="fp8_e4m3")),
    (ORT_CPU, 4, WeightOptions(weight_format="nvfp4")),
    (portable(18), 3, WeightOptions()),
    (portable(21), 4, WeightOptions()),
]


@pytest.fixture(scope="module")
def net():
    return Net(NET)


@pytest.mark.parametrize(("target", "bits", "options"), CASES)
def test_unpacked_at_load_and_equal_to_the_simulation(net, target, bits, options, tmp_path):
    path = tmp_path / "model.onnx"
    plan = dict.fromkeys((layer.name for layer in net.layers), bits)
    placement, file, simulated = net.export(plan, 8, path, target, options)
    layers = [layer for layer in net.layers if layer.op in RECURRENT]
    assert len(layers) == 7  # W of the two RNNs is one layer
    assert {placement.forms[layer.name] for layer in layers} == {"weight_only"}
    stored = {tensor.name for tensor in file.graph.initializer}
    written = {name for node in file.graph.node if node.op_type in RECURRENT for name in node.input[1:3]}
    assert written.isdisjoint(stored)
    optimized = optimized_graph(path).graph
    stored = {tensor.name for tensor in optimized.initializer}
    loaded = [node for node in optimized.node if node.op_type in RECURRENT]
    assert len(loaded) == 4
    assert all({*node.input[1:3]} <= stored for node in loaded)
    assert {kernels(path, layers)[layer.name] for layer in layers} == RECURRENT
    check_layers(path, net.simulation, placement, net.feeds)
    assert np.abs(net.run(path) - simulated).max() <= 0.05 * np.abs(simulated).max()
    sizes = predict_sizes(net.model, net.layers, dict.fromkeys(plan, (bits,)), 8, target, options)
    assert abs(file.ByteSize() - sizes.total(plan)) <= max(0.03 * file.ByteSize(), 200)


def test_one_of_the_two_weights_alone(net, tmp_path):
    """The other one, and the bias, are in the file as they were."""
    path = tmp_path / "model.onnx"
    plan = {layer.name: 4 if layer.weight == "r1" else FLOAT_BITS for layer in net.layers}
    _, file, simulated = net.export(plan, 8, path)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    (node,) = (node for node in file.graph.node if node.op_type == "LSTM")
    assert (node.input[1], node.input[3]) == ("w1", "b1")
    np.testing.assert_array_equal(stored["w1"], net.program.weights["w1"].numpy())
    assert node.input[2] not in stored
    np.testing.assert_allclose(net.run(path), simulated, atol=1e-5)


def test_each_row_has_a_step_of_its_own(net, tmp_path):
    """One number for each gate and hidden unit, for both directions."""
    plan = {layer.name: 8 for layer in net.layers}
    net.export(plan, 8, tmp_path / "model.onnx")
    (layer,) = (layer for layer in net.layers if layer.weight == "w1")
    weight = net.program.weights["w1"].numpy()
    assert net.weights[layer.name].scale.shape == (24,)
    largest = np.abs(weight).max(axis=(0, 2))
    lost = np.abs(net.weights[layer.name].dequantize() - weight).max(axis=(0, 2))
    assert (lost <= largest / 100).all()


@pytest.mark.parametrize("target", [tensorrt(), ORT_CUDA])
def test_float_for_gpus(target, net):
    for layer in net.layers:
        if layer.op in RECURRENT:
            assert all(target.form(layer, net.model, bits, 8) is None for bits in (4, 8))
            assert target.form(layer, net.model, FLOAT_BITS, 8) == "float"


def test_a_wrong_file_is_noticed(net, tmp_path):
    """Another bias than that of the model, in a node whose weights are right."""
    path = tmp_path / "model.onnx"
    plan = dict.fromkeys((layer.name for layer in net.layers), 8)
    placement, file, _ = net.export(plan, 8, path)
    for tensor in file.graph.initializer:
        if tensor.name == "b2":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 0.1, "b2"))
    onnx.save(file, path)
    with pytest.raises(InternalError, match=r"GRU, 8 bits"):
        check_layers(path, net.simulation, placement, net.feeds)
