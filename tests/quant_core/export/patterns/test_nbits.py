"""Matrix products in blocks: on onnxruntime's own kernel, equal to the simulation, in fewer bytes."""

import numpy as np
import onnx
import pytest
import torch

from quant_core.export import predict_sizes
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import portable
from quant_core.quantizers.grids.activation import block_fake_quantize
from quant_core.spec import WeightGrid, WeightOptions
from quant_core.verification import check_layers, kernels
from tests.quant_core.export.networks import Net

ODD = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[n,t,80] x) => (float[n,t,24] y) {
        a = MatMul(x, w1)
        g = Gelu(a)
        b = MatMul(x, w2)
        m = Mul(g, b)
        o = MatMul(m, w3)
        y = Add(o, b3)
    }"""
PLAIN = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[n,96] x) => (float[n,10] y) {
        a = Gemm<transB=1>(x, w1, b1)
        r = Relu(a)
        y = Gemm(r, w2, b2)
    }"""
NETS = {
    "products": (ODD, {"w1": (80, 64), "w2": (80, 64), "w3": (64, 24), "b3": (24,)}, set(), {}),
    "gemms": (PLAIN, {"w1": (40, 96), "b1": (40,), "w2": (40, 10), "b2": (10,)}, set(), {}),
}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", NETS)
def test_blocks_run_packed_and_equal_the_simulation(name, bits, size, symmetric, tmp_path):
    net, path = Net(NETS[name]), tmp_path / "model.onnx"
    options = WeightOptions(granularity="block", block_size=size, symmetric=symmetric)
    plan = {layer.name: bits for layer in net.layers}
    placement, file, simulated = net.export(plan, 8, path, options=options)
    packed = bits != 2 or size in {32, 64, 128}
    assert set(placement.forms.values()) == ({"block"} if packed else {"weight_only"})
    # What is summed first differs, and a code of the input may fall to the other side.
    assert np.abs(net.run(path) - simulated).max() <= 2e-3 * np.abs(simulated).max()
    if packed:
        assert set(kernels(path, net.layers).values()) == {"MatMulNBits"}
        check_layers(path, net.simulation, net.placement, net.feeds)
    sizes = predict_sizes(net.model, net.layers, dict.fromkeys(plan, (bits,)), 8, options=options)
    assert abs(file.ByteSize() - sizes.total(plan)) <= max(0.02 * file.ByteSize(), 96)


def test_rounding_by_rows_and_blocks_is_what_the_kernel_does():
    x = torch.randn(3, 5, 70, generator=torch.Generator().manual_seed(0))
    rounded = block_fake_quantize(x, 32).numpy()
    for row, found in zip(x.reshape(-1, 70).numpy(), rounded.reshape(-1, 70), strict=True):
        for start in range(0, 70, 32):
            block = row[start : start + 32]
            step = np.abs(block).max() / 127
            np.testing.assert_allclose(
                found[start : start + 32], np.round(block / step) * step, rtol=1e-5, atol=1e-7
            )
    for nothing in (0.0, 1e-40):
        assert not block_fake_quantize(torch.full((2, 8), nothing), 16).any()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_halves_of_the_largest_value_fall_to_the_side_that_the_kernel_takes(bits, tmp_path):
    """A table of 2 bits holds steps times -2 to 1, and half of 127 steps lies between two codes."""
    net, path, rng = Net(NETS["gemms"]), tmp_path / "model.onnx", np.random.default_rng(0)
    steps = np.exp(rng.standard_normal((200, 1))).astype(np.float16).astype(np.float32)
    net.feeds["x"] = rng.integers(-2, 2, (200, 96)).astype(np.float32) * steps
    options = WeightOptions(granularity="block", block_size=32)
    _, _, simulated = net.export({layer.name: bits for layer in net.layers}, 8, path, options=options)
    check_layers(path, net.simulation, net.placement, net.feeds)
    assert np.abs(net.run(path) - simulated).max() <= 2e-3 * np.abs(simulated).max()


def test_float_activations_and_other_runtimes_have_no_such_kernel():
    net, grid = Net(NETS["products"]), WeightGrid("block", 32)
    for layer in net.layers:
        assert ORT_CPU.form(layer, net.model, 4, 8, grid) == "block"
        assert ORT_CPU.form(layer, net.model, 4, 32, grid) == "weight_only"
        assert ORT_CPU.form(layer, net.model, 3, 8, grid) == "weight_only"
        assert portable(21).form(layer, net.model, 4, 8, grid) == "weight_only"


def test_the_accuracy_level_is_written_down(tmp_path):
    net = Net(NETS["products"])
    options = WeightOptions(granularity="block", block_size=32)
    _, file, _ = net.export({layer.name: 4 for layer in net.layers}, 8, tmp_path / "m.onnx", options=options)
    products = [node for node in file.graph.node if node.op_type == "MatMulNBits"]
    assert [onnx.helper.get_node_attr_value(node, "accuracy_level") for node in products] == [4, 4, 4]
