"""Trellis-coded weights: every operator and width exported, run in onnxruntime, equal to the simulation."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from quant_core.codes import NarrowChannels
from quant_core.codes.trellis import TRELLIS_BITS, trellis_values
from quant_core.export.size.trellis import decoder_bytes, decoding_bytes
from quant_core.export.storage.graph_nodes import GraphNodes
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import portable
from quant_core.ingest.reading.quantized_parts import find_quantized_parts
from quant_core.quantizers import quantize_weight
from quant_core.quantizers.rounding.mixed_channels import mixed_codes
from quant_core.quantizers.rounding.trellis import can_be_coded
from quant_core.spec import FLOAT_BITS
from tests.quant_core.export.networks import EVERY_OPERATOR, Net, optimized


@pytest.fixture(scope="module")
def net():
    return Net(EVERY_OPERATOR)


def coded(layer, weight, bits, axis, grid, *, mixed=True):
    """Paths at random under half of the scalar steps: nothing is claimed to be well chosen."""
    start = quantize_weight(weight, bits, axis, grid)
    if not can_be_coded(layer, start):
        return start
    if mixed and bits > 2 and layer.op != "Gemm":
        row = {bits: start, 2: quantize_weight(weight, 2, axis, grid)}
        start = mixed_codes(row, bits, NarrowChannels(2, np.arange(weight.shape[axis]) % 3 == 0))
    scale = start.scale * np.float32(0.5)
    return replace(start, codes=trellis_values(start.codes, axis), scale=scale, trellis=True)


def coded_alike(*given):
    return coded(*given, mixed=False)


def export(net, bits, activation_bits, path, target=ORT_CPU, rounded=coded):
    plan = {layer.name: bits for layer in net.layers}
    return net.export(plan, activation_bits, path, target, rounded=rounded)


@pytest.mark.parametrize("activation_bits", [8, 16, FLOAT_BITS])
@pytest.mark.parametrize("bits", TRELLIS_BITS)
def test_file_equals_simulation(net, bits, activation_bits, tmp_path):
    path = tmp_path / "model.onnx"
    placement, _, simulated = export(net, bits, activation_bits, path)
    assert ("static" in placement.forms.values()) == (activation_bits == 8)
    assert sum(weight.trellis for weight in net.weights.values()) >= 4
    tolerance = {8: 0.08, 16: 2e-4, FLOAT_BITS: 2e-6}[activation_bits]
    assert np.abs(net.run(path) - simulated).max() <= tolerance * np.abs(simulated).max()


@pytest.mark.parametrize("target", [ORT_CPU, portable(21)])
@pytest.mark.parametrize("bits", [2, 4])
def test_bytes_are_foretold(net, bits, target, tmp_path):
    def written(rounded):
        return export(net, bits, 8, tmp_path / "model.onnx", target, rounded)[1].ByteSize()

    before, after = written(lambda _, *given: quantize_weight(*given)), written(coded_alike)
    paths = [weight for weight in net.weights.values() if weight.trellis]
    each = [decoding_bytes(target, weight.codes.shape, weight.axis) for weight in paths]
    taken = after - before
    assert taken <= decoder_bytes(target) + sum(each) <= taken + 90 * len(each)


@pytest.mark.parametrize("bits", TRELLIS_BITS)
def test_nothing_of_the_trellis_is_left_at_run_time(net, bits, tmp_path):
    path = tmp_path / "model.onnx"
    export(net, bits, 8, path)
    graph = optimized(path)
    ops = {node.op_type for node in graph.node}
    assert not {"BitwiseXor", "BitwiseAnd", "Pad", "Trellis"} & ops
    assert {"QLinearConv", "MatMulIntegerToFloat"} & ops
    stored = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
    conv = next(weight for weight in net.weights.values() if weight.codes.shape == (32, 8, 3, 3))
    assert conv.trellis
    assert any(np.array_equal(array, conv.codes) for array in stored if array.dtype == np.int8)


@pytest.mark.parametrize("opset", [18, 21, 25])
@pytest.mark.parametrize("bits", [2, 3, 5])
def test_a_portable_file_needs_standard_operators_alone(net, bits, opset, tmp_path):
    path = tmp_path / "model.onnx"
    _, file, simulated = export(net, bits, 8, path, portable(opset), coded_alike)
    assert not file.functions
    assert {entry.domain for entry in file.opset_import} <= {""}
    assert "BitwiseXor" in {node.op_type for node in file.graph.node}
    assert np.abs(net.run(path) - simulated).max() <= 0.08 * np.abs(simulated).max()


@pytest.mark.parametrize("axis", [0, 1])
def test_portable_decoding_is_exact_in_other_runtimes_too(axis):
    codes = np.random.default_rng(0).integers(-4, 4, (40, 70, 2)).astype(np.int8)
    writer = GraphNodes(())
    result = portable(21).storage.write_trellis(writer, "codes", codes.shape, axis)
    kind = onnx.TensorProto.INT8
    graph = onnx.helper.make_graph(
        writer.nodes,
        "g",
        [onnx.helper.make_tensor_value_info("codes", kind, codes.shape)],
        [onnx.helper.make_tensor_value_info(result, kind, codes.shape)],
        writer.initializers,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    (found,) = ReferenceEvaluator(model).run(None, {"codes": codes})
    np.testing.assert_array_equal(found, trellis_values(codes, axis))


def test_a_file_tells_its_bits(net, tmp_path):
    _, file, _ = export(net, 4, 8, tmp_path / "model.onnx", rounded=coded_alike)
    parts = {part.name: part for part in find_quantized_parts(file)}
    coded_layers = [layer for layer in net.layers if net.weights[layer.name].trellis]
    assert len(coded_layers) >= 4
    assert {parts[layer.uses[0].node].bits for layer in coded_layers if layer.uses[0].node in parts} == {4}
