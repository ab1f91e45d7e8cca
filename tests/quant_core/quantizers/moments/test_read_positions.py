import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quant_core.calibration import Samples
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.calibration_moments import CalibrationMoments
from quant_core.quantizers.moments.input_moments import input_moments
from quant_core.quantizers.moments.read_positions import reads_in_part, run_and_see, seeing_batch
from quant_core.quantizers.rounding.round_weights import round_weights
from quant_core.spec import WeightOptions

COUNT, LENGTH, WIDTH = 24, 7, 5


def tokens(*, masked: bool, saturated: bool = False):
    """Two products token by token, and the sum of those tokens that a mask lets through."""
    chance = np.random.default_rng(4)
    first, second = chance.standard_normal((WIDTH, 6)), chance.standard_normal((6, 4))
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], name="first"),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["c"], name="second"),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["c", "column"] if masked else ["c", "one"], ["d"]),
        helper.make_node("ReduceSum", ["d", "middle"], ["e"], keepdims=0),
        helper.make_node("Mul", ["e", "large"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"]) if saturated else helper.make_node("Tanh", ["e"], ["y"]),
    ]
    constants = {
        "first": first.astype(np.float32),
        "second": second.astype(np.float32),
        "last": np.array([-1]),
        "middle": np.array([1]),
        "one": np.ones(1, np.float32),
        "large": np.full(1, 1e6, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", LENGTH, WIDTH]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", LENGTH]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(proto)
    model = normalise(ir.from_proto(proto))
    return model, find_layers(model), compile_model(model)


def padded(scale: float = 1.0) -> Samples:
    chance = np.random.default_rng(5)
    lengths = chance.integers(1, LENGTH, COUNT)
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.float32)
    x = chance.standard_normal((COUNT, LENGTH, WIDTH)).astype(np.float32)
    x = np.where(mask[:, :, None] > 0, x, scale * (x + 3)).astype(np.float32)
    return Samples(inputs={"x": x, "mask": mask})


def moments_of(model, layers, program, samples):
    return input_moments(FloatNetwork(program, model, layers, 5), layers, samples, seed=0)


@pytest.mark.parametrize("masked", [True, False])
def test_moments_are_those_of_the_rows_that_are_read(masked):
    model, layers, program = tokens(masked=masked)
    samples = padded()
    assert reads_in_part(program, layers, samples) == masked
    x, mask = samples.inputs["x"], samples.inputs["mask"]
    kept = x[mask > 0] if masked else x.reshape(-1, WIDTH)
    hidden = np.tanh(kept @ numpy_helper.to_array(ir.to_proto(model).graph.initializer[0]))
    found = moments_of(model, layers, program, samples)
    for layer, rows in zip(layers, (kept, hidden), strict=True):
        moments = found[layer.name]
        assert moments.columns == len(rows)
        np.testing.assert_allclose(moments.second[0], rows.T @ rows / len(rows), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moments.mean[0], rows.mean(0), rtol=1e-4, atol=1e-5)


def test_codes_do_not_depend_on_what_stands_in_padding():
    model, layers, program = tokens(masked=True)
    first, second = (
        round_weights(
            CalibrationMoments(FloatNetwork(program, model, layers, 8), padded(scale), 0),
            {layer.name: (2, 3) for layer in layers},
            WeightOptions(),
            on_progress=lambda *_: None,
        )
        for scale in (1.0, 50.0)
    )
    for layer in layers:
        for bits in (2, 3):
            one, other = first[layer.name][bits], second[layer.name][bits]
            np.testing.assert_array_equal(one.codes, other.codes)
            np.testing.assert_array_equal(one.scale, other.scale)


def test_every_row_counts_where_gradients_tell_nothing():
    model, layers, program = tokens(masked=True, saturated=True)
    samples = padded()
    feeds = {name: torch.from_numpy(array) for name, array in samples.inputs.items()}
    assert bool(program.evaluate(feeds)["y"].max(1).values.eq(1).all())
    found = moments_of(model, layers, program, samples)
    assert {moments.columns for moments in found.values()} == {COUNT * LENGTH}


def test_values_are_those_of_a_plain_run():
    _, layers, program = tokens(masked=True)
    feeds = {name: torch.from_numpy(array) for name, array in padded().inputs.items()}
    run = run_and_see(program, feeds, ["x", "b", "y"], layers, COUNT)
    expected = program.evaluate(feeds, outputs=["x", "b", "y"])
    assert {name: value.requires_grad for name, value in run.values.items()} == dict.fromkeys(expected, False)
    for name, value in expected.items():
        torch.testing.assert_close(run.values[name], value, rtol=0, atol=0)
    for rows in run.read.values():
        torch.testing.assert_close(rows.view(COUNT, LENGTH), feeds["mask"] > 0)


def test_large_networks_are_differentiated_sample_by_sample():
    _, layers, _ = tokens(masked=True)
    assert seeing_batch(layers) == 8
    large = [layer.__class__(**{**vars(layer), "output_elements": 1 << 27}) for layer in layers]
    assert seeing_batch(large) == 1
