"""Every operator on every grid: exported, run in onnxruntime, equal to the simulation, of the size foretold."""

import numpy as np
import onnx
import onnxruntime
import pytest

from quant_core.codes import QuantizedWeight
from quant_core.errors import InternalError
from quant_core.export import predict_sizes
from quant_core.export.patterns.element_patterns import stored_scales
from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.export.patterns.weight_patterns import write_int8
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import portable
from quant_core.quantizers import quantize_weight
from quant_core.spec import FLOAT_BITS, WeightOptions
from tests.quant_core.export.networks import EVERY_OPERATOR, HEADER, Net, optimized_operators, uncorrected

INTEGERS = [
    (bits, WeightOptions(granularity=granularity, block_size=16, symmetric=symmetric))
    for bits in (2, 3, 4, 5, 6, 8)
    for granularity in ("tensor", "channel", "block")
    for symmetric in (True, False)
]
FLOATING = [
    (bits, WeightOptions(weight_format=name, granularity=granularity, block_size=32))
    for bits, name, granularity in [
        (8, "fp8_e4m3", "tensor"),
        (8, "fp8_e4m3", "channel"),
        (8, "fp8_e4m3", "block"),
        (8, "fp8_e5m2", "channel"),
        (4, "nvfp4", "channel"),
        (4, "mxfp4", "channel"),
    ]
]


def label(value):
    if isinstance(value, WeightOptions):
        kind = value.weight_format if value.weight_format != "int" else f"symmetric={value.symmetric}"
        return f"{value.granularity}-{kind}"
    return str(value)


@pytest.fixture(scope="module")
def net():
    return Net(EVERY_OPERATOR)


@pytest.fixture(autouse=True)
def _look_up_codes(monkeypatch):
    """Take the table of the net for a large one."""
    monkeypatch.setattr("quant_core.export.targets.ort_cpu._SMALL_TABLE", 0)


def export(net, bits, options, path, activation_bits=8, target=ORT_CPU):
    plan = {layer.name: bits for layer in net.layers}
    placement, file, simulated = net.export(plan, activation_bits, path, target, options)
    sizes = predict_sizes(
        net.model, net.layers, dict.fromkeys(plan, (bits,)), activation_bits, target, uncorrected(options)
    )
    # Zero points of activations, which are stored once where they are equal, are not foretold.
    assert abs(file.ByteSize() - sizes.total(plan)) <= max(0.02 * file.ByteSize(), 160)
    return placement, file, simulated


@pytest.mark.parametrize("activation_bits", [8, FLOAT_BITS])
@pytest.mark.parametrize(("bits", "options"), [*INTEGERS, *FLOATING], ids=label)
def test_file_equals_simulation(net, bits, options, activation_bits, tmp_path):
    path = tmp_path / "model.onnx"
    placement, _, simulated = export(net, bits, options, path, activation_bits)
    integer = options.grid(bits).suits_int8_kernels(bits) and activation_bits == 8
    assert ("static" in placement.forms.values()) == integer
    assert placement.forms[next(layer.name for layer in net.layers if layer.op == "Gather")] == "gather"
    # Where activations are rounded, a step of a grid may fall the other way, layer after layer.
    tolerance = 0.08 if integer else 2e-6
    assert np.abs(net.run(path) - simulated).max() <= tolerance * np.abs(simulated).max()


@pytest.mark.parametrize(("bits", "options"), [*INTEGERS[5::6], *FLOATING], ids=label)
def test_sixteen_bit_activations_go_with_every_grid(net, bits, options, tmp_path):
    path = tmp_path / "model.onnx"
    placement, _, simulated = export(net, bits, options, path, 16)
    assert "wide" in placement.forms.values()
    assert np.abs(net.run(path) - simulated).max() <= 2e-4 * np.abs(simulated).max()


@pytest.mark.parametrize(
    ("bits", "options"), [*INTEGERS[1::6], *INTEGERS[3::6], *INTEGERS[5::6], *FLOATING], ids=label
)
def test_nothing_of_a_weight_is_unpacked_at_run_time(net, bits, options, tmp_path):
    path = tmp_path / "model.onnx"
    export(net, bits, options, path)
    operators = optimized_operators(path)
    gathers = 2 + (options.grid(bits).block is not None) + (options.weight_format != "int")
    if not options.symmetric and options.weight_format == "int":
        gathers += 1 + (options.grid(bits).block is not None)
    assert operators.count("Gather") <= gathers  # those of the table's rows, their scales and zero points
    assert not {"Unpack3", "Range", "Expand", "Pow"}.intersection(operators)
    integer = options.grid(bits).suits_int8_kernels(bits)
    assert operators.count("QLinearConv") == 3 * integer  # zero points of fewer than 8 bits too
    assert operators.count("QGemm") == 2 * integer
    fused = {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
    assert sum(operator in fused for operator in operators) == integer
    assert operators.count("Transpose") <= 2 * integer  # onnxruntime moves channels for its kernels
    assert operators.count("Sub") <= 1
    assert operators.count("Mul") <= 1


@pytest.mark.parametrize("opset", [18, 19, 21, 25])
@pytest.mark.parametrize(("bits", "options"), [*INTEGERS[5::6], *FLOATING[3:]], ids=label)
def test_portable_files_know_every_grid(net, bits, options, opset, tmp_path):
    if options.weight_format in {"fp8_e4m3", "fp8_e5m2", "nvfp4"} and opset < 19:
        grid = options.grid(bits)
        assert all(portable(opset).form(layer, net.model, bits, 8, grid) is None for layer in net.layers)
        return
    path = tmp_path / "model.onnx"
    _, file, simulated = export(net, bits, options, path, target=portable(opset))
    assert {node.domain for node in file.graph.node} == {""}
    assert np.abs(net.run(path) - simulated).max() <= 2e-6 * np.abs(simulated).max()


@pytest.mark.parametrize(
    ("options", "bits", "wanted"),
    [
        (WeightOptions(weight_format="nvfp4"), 4, 4.5),
        (WeightOptions(weight_format="mxfp4"), 4, 4.25),
        (WeightOptions(weight_format="fp8_e4m3"), 8, 8),
        (WeightOptions(granularity="block", block_size=32), 4, 4.5),
        (WeightOptions(granularity="block", block_size=128, symmetric=False), 3, 3 + 19 / 128),
    ],
    ids=label,
)
def test_bits_a_weight_are_those_on_disk(options, bits, wanted):
    model = Net(
        (HEADER + "g (float[n,256] x) => (float[n,1024] y) { y = MatMul(x, w) }", {"w": (256, 1024)}, {}, {})
    )
    assert options.grid(bits).effective_bits(bits) == wanted
    (layer,) = model.layers
    sizes = predict_sizes(model.model, model.layers, {layer.name: (bits,)}, 8, ORT_CPU, options)
    step = 2 if options.weight_format == "int" else 4
    channel_scales = step * 1024 if options.grid(bits).block is None else 0
    stored = sizes.layers[layer.name][bits] - channel_scales
    assert wanted * layer.parameters / 8 <= stored <= wanted * layer.parameters / 8 + 600


def test_every_power_of_two_is_restored_exactly(tmp_path):
    exponents = np.arange(-126, 128)
    scale = np.ldexp(np.float32(1), exponents).astype(np.float32)[:, None]
    weight = QuantizedWeight(
        np.full((254, 32), 2, np.int8), scale, 0, 4, block_size=32, format="mxfp4"
    )  # the code of 1
    writer = GraphWriter(["x", "y"], ORT_CPU.storage)
    steps = stored_scales(writer, weight, scale.shape)
    writer.node("Add", ["x", steps], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, 1, list(scale.shape)) for name in "xy"]
    graph = onnx.helper.make_graph(writer.nodes, "g", value[:1], value[1:], writer.initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_array_equal(
        session.run(None, {"x": np.zeros_like(scale)})[0], weight.dequantize()[:, :1]
    )


def test_integer_kernels_are_not_given_what_they_cannot_take(net):
    writer = GraphWriter([], ORT_CPU.storage)
    weight = quantize_weight(np.ones((4, 4), np.float32), 8, 0, WeightOptions(symmetric=False).grid(8))
    with pytest.raises(InternalError, match="no integer kernel"):
        write_int8(writer, net.layers[0], weight)
