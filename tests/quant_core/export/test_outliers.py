"""Dense codes with outliers: every operator and width exported, run in onnxruntime, equal to the simulation."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from quant_core.codes.outliers import SPARSE_BITS, Outliers, most_that_fit, pairs_for
from quant_core.export import predict_sizes
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import portable
from quant_core.quantizers import quantize_weight
from quant_core.spec import FLOAT_BITS, WeightOptions
from quant_core.spec.width import stored_of, width_of
from tests.quant_core.export.networks import EVERY_OPERATOR, Net, optimized, uncorrected

SHARE = 0.02
CANNOT = {"Gather"}


@pytest.fixture(scope="module")
def net():
    return Net(EVERY_OPERATOR)


def with_outliers(weight, bits, axis, grid):
    """Half the range, and the weights furthest beyond it kept apart: nothing is claimed to be well chosen."""
    start = quantize_weight(weight, bits, axis, grid)
    scale = start.scale * np.float32(0.5)
    shift = 0 if start.zero_point is None else start.spread(start.zero_point).astype(np.float32)
    wanted = np.round(weight / start.spread(scale)) + shift
    half = 1 << (bits - 1)
    beyond = np.maximum(wanted - (half - 1), -half - wanted).reshape(-1)
    ranked = np.argsort(-beyond, kind="stable")[: int((beyond > 0).sum())]
    pairs = pairs_for(SHARE, weight.size)
    positions = most_that_fit(ranked.astype(np.int64), pairs)
    result = replace(start, scale=scale, outliers=Outliers(positions, pairs))
    low, high = result.code_limits()
    return replace(result, codes=np.clip(wanted, low, high).astype(np.int8))


def export(net, bits, activation_bits, path, target=ORT_CPU, options=WeightOptions()):  # noqa: B008 # frozen
    def rounded(layer, *given):
        return quantize_weight(*given) if layer.op in CANNOT else with_outliers(*given)

    plan = {layer.name: bits for layer in net.layers}
    placement, file, simulated = net.export(plan, activation_bits, path, target, options, rounded)
    return placement, file, net.weights, simulated


@pytest.mark.parametrize("activation_bits", [8, 16, FLOAT_BITS])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", SPARSE_BITS)
def test_file_equals_simulation(net, bits, symmetric, activation_bits, tmp_path):
    path = tmp_path / "model.onnx"
    options = WeightOptions(symmetric=symmetric)
    placement, file, weights, simulated = export(net, bits, activation_bits, path, options=options)
    assert ("static" in placement.forms.values()) == (activation_bits == 8)
    kept = [weight for weight in weights.values() if weight.outliers is not None]
    assert len(kept) == len(net.layers) - 1
    assert all((weight.codes != weight.dense_codes()).any() for weight in kept)
    tolerance = {8: 0.08, 16: 2e-4, FLOAT_BITS: 2e-6}[activation_bits]
    assert np.abs(net.run(path) - simulated).max() <= tolerance * np.abs(simulated).max()
    plan = {layer.name: width_of(bits, None, 0 if layer.op in CANNOT else SHARE) for layer in net.layers}
    sizes = predict_sizes(
        net.model,
        net.layers,
        {name: (bits, width) if width != bits else (bits,) for name, width in plan.items()},
        activation_bits,
        options=uncorrected(options),
    )
    assert abs(file.ByteSize() - sizes.total(plan)) <= max(0.02 * file.ByteSize(), 160)
    assert all(stored_of(width) == width for width in plan.values())


@pytest.mark.parametrize("bits", SPARSE_BITS)
def test_nothing_of_outliers_is_left_at_run_time(net, bits, tmp_path):
    path = tmp_path / "model.onnx"
    _, _, weights, _ = export(net, bits, 8, path)
    graph = optimized(path)
    ops = {node.op_type for node in graph.node}
    assert not {"CumSum", "ScatterElements", "Outliers"} & ops
    assert {"QLinearConv", "MatMulIntegerToFloat"} & ops
    stored = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
    conv = next(weight for weight in weights.values() if weight.codes.shape == (32, 8, 3, 3))
    assert any(np.array_equal(array, conv.codes) for array in stored if array.dtype == np.int8)


@pytest.mark.parametrize("opset", [18, 21, 25])
@pytest.mark.parametrize("bits", [2, 3, 5])
def test_a_portable_file_needs_standard_operators_alone(net, bits, opset, tmp_path):
    path = tmp_path / "model.onnx"
    _, file, _, simulated = export(net, bits, 8, path, portable(opset))
    assert not file.functions
    assert {entry.domain for entry in file.opset_import} <= {""}
    assert "ScatterElements" in {node.op_type for node in file.graph.node}
    assert np.abs(net.run(path) - simulated).max() <= 0.08 * np.abs(simulated).max()
