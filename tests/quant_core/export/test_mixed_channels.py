"""Channels of two widths: every operator and pair of widths exported, run in onnxruntime, equal to the simulation."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from quant_core.codes import NarrowChannels
from quant_core.export import export_model, place
from quant_core.export.channel_size import bytes_apart, function_bytes
from quant_core.export.ort_cpu import ORT_CPU
from quant_core.quantizers import Simulation, activation_grid, quantize_weight
from quant_core.quantizers.mixed_channels import mix_channels
from quant_core.spec import FLOAT_BITS, WeightOptions
from tests.quant_core.export.networks import Net
from tests.quant_core.export.test_grids import EVERY_OPERATOR

CANNOT = {"Gather", "ConvTranspose"}
PAIRS = list(itertools.combinations((2, 3, 4, 5, 6, 8), 2))


@pytest.fixture(scope="module")
def net():
    return Net(EVERY_OPERATOR)


def export(net, narrow, bits, activation_bits, path, *, mixed=True, options=WeightOptions()):  # noqa: B008 # frozen
    plan = {layer.name: bits for layer in net.layers}
    placement = place(net.model, net.layers, plan, activation_bits, ORT_CPU, options)
    tensors = {name: torch.from_numpy(array) for name, array in net.feeds.items()}
    with torch.no_grad():
        inside = [name for name in placement.points if name not in tensors]
        values = tensors | net.program.evaluate(tensors, outputs=inside)
    grids = {
        name: activation_grid(float(values[name].min()), float(values[name].max()))
        for name in placement.points
    }
    weights = {}
    for number, layer in enumerate(net.layers):
        array = net.model.graph.initializers[layer.weight].const_value.numpy()
        axis = layer.step_axis(options.grid(bits))
        row = {b: quantize_weight(array, b, axis, options.grid(b)) for b in (narrow, bits)}
        if mixed and layer.op not in CANNOT and isinstance(axis, int):
            channels = np.random.default_rng(number).permutation(array.shape[axis]) % 3 == 0
            row[bits] = mix_channels(row, bits, NarrowChannels(narrow, channels))
        weights[layer.name] = row[bits]
    file = export_model(net.model, net.layers, weights, placement, grids, ORT_CPU)
    onnx.save(file, path)
    onnx.checker.check_model(path, full_check=True)
    dynamic = [name for name, form in placement.forms.items() if form == "dynamic"]
    simulated = Simulation(net.model, net.layers, weights, grids, dynamic).run(net.feeds)["y"]
    return placement, file, weights, simulated


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
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{mixed}.opt.onnx")
        path = tmp_path / f"{mixed}.onnx"
        export(net, 3, 5, 8, path, mixed=mixed)
        onnxruntime.InferenceSession(path, options)
        return Counter(node.op_type for node in onnx.load(tmp_path / f"{mixed}.opt.onnx").graph.node)

    assert run(mixed=True) == run(mixed=False)


def test_codes_are_those_of_each_width():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 4, 3)).astype(np.float32)
    row = {bits: quantize_weight(weight, bits, 0) for bits in (2, 5)}
    channels = np.array([True, False, False, True, False, True])
    mixed = mix_channels(row, 5, NarrowChannels(2, channels))
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
