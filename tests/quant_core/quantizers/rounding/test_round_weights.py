"""Layers are rounded side by side; no codes depend on which others are, or on how many threads there are."""

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from quant_core.calibration import Samples
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import quantize_weight
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.calibration_moments import CalibrationMoments, KeptMoments
from quant_core.quantizers.rounding.round_weights import round_weights
from quant_core.spec import QuantizeSpec


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_codes_are_the_same_with_one_and_with_several_threads(threads):
    sizes = (24, 96, 80, 72, 640, 40)
    steps = " ".join(f"m{i} = MatMul(h{i}, w{i}) h{i + 1} = Relu(m{i})" for i in range(5))
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 21]>
        net (float[n, 24] h0) => (float[n, 40] y) {{ {steps} y = Identity(h5) }}"""
    )
    rng = np.random.default_rng(0)
    for i, shape in enumerate(itertools.pairwise(sizes)):
        values = rng.normal(0, 1 / np.sqrt(shape[0]), shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, f"w{i}"))
    normal = normalise(ir.serde.deserialize_model(model))
    program, layers = compile_model(normal), find_layers(normal)
    samples = Samples(inputs={"h0": rng.normal(size=(64, 24)).astype(np.float32)})
    kept, told = KeptMoments(), []

    def rounded(count: int, some=layers):
        threads(count)
        found = round_weights(
            CalibrationMoments(FloatNetwork(program, normal, some, 16), samples, 0, kept=kept),
            {layer.name: (2, 4, 8) for layer in layers},
            QuantizeSpec(size=0.5),
            on_progress=lambda _, message: told.append(message),
        )
        assert torch.get_num_threads() == count
        return found

    alone, others = rounded(1), [rounded(2), rounded(4), rounded(4, layers[2:])]
    turns = [message for message in told if "GPTQ" in message]
    assert set(turns[:5]) == {f"GPTQ {layer.name}" for layer in layers}
    assert turns[5:10] == turns[:5]  # whoever is done first
    for found in others:
        for name, widths in found.items():
            for bits, weight in widths.items():
                np.testing.assert_array_equal(weight.codes, alone[name][bits].codes)
                np.testing.assert_array_equal(weight.scale, alone[name][bits].scale)


def test_a_weight_that_is_read_both_ways_is_rounded_to_its_nearest_codes():
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        net (float[n, 16] x) => (float[n, 16] y) { h = Gemm(x, w) r = Relu(h) y = Gemm<transB=1>(r, w) }"""
    )
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(16, 8)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    normal = normalise(ir.serde.deserialize_model(model))
    (layer,) = find_layers(normal)
    found = round_weights(
        CalibrationMoments(
            FloatNetwork(compile_model(normal), normal, [layer], 16),
            Samples(inputs={"x": rng.normal(size=(64, 16)).astype(np.float32)}),
            0,
        ),
        {layer.name: (4, 8)},
        QuantizeSpec(size=0.5),
        on_progress=lambda *_: None,
    )[layer.name]
    for bits, rounded in found.items():
        # The outputs of one node lie where the other has its inputs: no axis holds those of both.
        nearest = quantize_weight(weight, bits, None, QuantizeSpec(size=0.5).grid(bits))
        np.testing.assert_array_equal(rounded.codes, nearest.codes)
