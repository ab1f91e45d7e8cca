"""Channels of two widths: every operator and pair of widths exported, run in onnxruntime, equal to the simulation."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from quant_core.codes import NarrowChannels
from quant_core.export.size.channels import bytes_apart, function_bytes
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.quantizers import quantize_weight
from quant_core.quantizers.rounding.mixed_channels import mixed_codes
from quant_core.spec import FLOAT_BITS, WeightOptions
from tests.quant_core.export.networks import EVERY_OPERATOR, Net, optimized_operators

CANNOT = {"Gather", "ConvTranspose"}
PAIRS = list(itertools.combinations((2, 3, 4, 5, 6, 8), 2))


@pytest.fixture(scope="module")
def net():
    return Net(EVERY_OPERATOR)


def export(net, narrow, bits, activation_bits, path, *, mixed=True, options=WeightOptions()):  # noqa: B008 # frozen
    def rounded(layer, array, _, axis, grid):
        row = {width: quantize_weight(array, width, axis, grid) for width in (narrow, bits)}
        if not mixed or layer.op in CANNOT or not isinstance(axis, int):
            return row[bits]
        seed = net.layers.index(layer)
        channels = np.random.default_rng(seed).permutation(array.shape[axis]) % 3 == 0
        return mixed_codes(row, bits, NarrowChannels(narrow, channels))

    plan = {layer.name: bits for layer in net.layers}
    placement, file, simulated = net.export(plan, activation_bits, path, options=options, rounded=rounded)
    return placement, file, net.weights, simulated


@pytest.mark.parametrize("activation_bits", [8, FLOAT_BITS])
@pytest.mark.parametrize(("narrow", "bits"), PAIRS)
def test_file_equals_simulation(net, narrow, bits, activation_bits, tmp_path):
    path = tmp_path / "model.onnx"
    symmetric = (narrow + bits) % 2 == 0
    options = WeightOptions(symmetric=symmetric)
    _, file, weights, simulated = export(net, narrow, bits, activation_bits, path, options=options)
    assert {weight.narrow.bits for weight in weights.values() if weight.narrow} == {narrow}
    assert "Channels" in {function.name for function in file.functions}
    given = onnxruntime.InferenceSession(path).run(["y"], net.feeds)[0]
    error = ((given - simulated) ** 2).sum() / (simulated**2).sum()
    assert error < (1e-3 if activation_bits == 8 else 1e-8)


def test_nothing_of_it_is_left_at_run_time(net, tmp_path):
    def run(mixed):
        path = tmp_path / f"{mixed}.onnx"
        export(net, 3, 5, 8, path, mixed=mixed)
        return Counter(optimized_operators(path))

    assert run(mixed=True) == run(mixed=False)


def test_codes_are_those_of_each_width():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 4, 3)).astype(np.float32)
    row = {bits: quantize_weight(weight, bits, 0) for bits in (2, 5)}
    channels = np.array([True, False, False, True, False, True])
    mixed = mixed_codes(row, 5, NarrowChannels(2, channels))
    np.testing.assert_array_equal(mixed.dequantize()[channels], row[2].dequantize()[channels])
    np.testing.assert_array_equal(mixed.dequantize()[~channels], row[5].dequantize()[~channels])
    low, high = (np.broadcast_to(limit, weight.shape) for limit in mixed.code_limits())
    assert (low[channels], high[channels]) == (pytest.approx(-2), pytest.approx(1))
    assert (low[~channels], high[~channels]) == (pytest.approx(-16), pytest.approx(15))
    assert mixed.narrow.share == 0.5


@pytest.mark.parametrize("narrow", [2, 3, 6])
def test_bytes_are_foretold(net, narrow, tmp_path):
    _, plain, _, _ = export(net, narrow, 8, 8, tmp_path / "plain.onnx", mixed=False)
    _, mixed, weights, _ = export(net, narrow, 8, 8, tmp_path / "mixed.onnx")
    few = {layer: weights[layer.name].narrow for layer in net.layers if weights[layer.name].narrow}
    functions = {function.name: function.ByteSize() + 3 for function in mixed.functions}
    assert functions["Channels"] == pytest.approx(function_bytes(ORT_CPU), abs=1)
    foretold = float(sum(functions.values()))
    for layer, channels in few.items():
        foretold += bytes_apart(ORT_CPU, layer.weight, len(channels.channels), narrow)
        foretold -= layer.parameters * channels.share * (8 - narrow) / 8
    # Names get longer by a letter once there are more than 36 of them.
    assert mixed.ByteSize() - plain.ByteSize() == pytest.approx(foretold, abs=8 * len(few))
    assert replace(weights[net.layers[0].name], narrow=None).widths == {8}
