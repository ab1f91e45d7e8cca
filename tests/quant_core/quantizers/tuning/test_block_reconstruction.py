"""Reconstructed blocks come closer to the float net on samples they never saw; what is not better is not taken."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper

from quant_core.calibration import Samples
from quant_core.errors import CancelledError, NonFiniteError
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import activation_grid, fake_quantize
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.tuning.block_reconstruction import (
    BRECQ,
    QDROP,
    ReconstructedBlocks,
    reconstruct_blocks,
)
from quant_core.quantizers.tuning.block_walk import Method, Probe
from tests.quant_core.quantizers.tuning.small_nets import (
    build,
    by_gptq,
    chain,
    images,
    output_error,
    small_net,
)


def draw(values, _, chance):
    """A root of the Hessian of half the squared error, which is 1."""
    signs = 2.0 * torch.randint(2, values["y"].shape, generator=chance) - 1
    return (values["y"] * signs).sum()


def tune(net, start, samples, method, *, steps=150, probe=None, earlier=None, kept=None, **more):
    _, model, layers, program = net
    ranges = {"x": (-4, 4), "r1": (0, 4), "r2": (0, 4)}
    options = {
        "hooks": {name: partial(fake_quantize, grid=activation_grid(*ends)) for name, ends in ranges.items()},
        "seed": 0,
        "on_progress": lambda *_: None,
    }
    tuned = earlier or ReconstructedBlocks(start, ())
    blocks = reconstruct_blocks(
        FloatNetwork(program, model, layers, 16),
        tuned,
        samples,
        replace(method, steps=steps),
        probe=probe or Probe(draw, ("y",)),
        **(options | more),
    )
    for tuned in blocks:
        if kept is not None:
            kept.append(tuned)
    return tuned


@pytest.fixture(scope="module")
def case():
    net = small_net()
    samples = Samples(inputs={"x": images(256, 1)})
    return net, samples, by_gptq(*net[1:], samples, 2)


@pytest.mark.parametrize("method", [BRECQ, QDROP])
def test_unseen_samples_come_out_closer_than_by_gptq(case, method):
    net, samples, start = case
    tuned = tune(net, start, samples, method)
    assert all(after < before for before, after in tuned.errors)
    unseen = images(200, 2)
    assert output_error(net[0], net[2], tuned.weights, unseen) < 0.9 * output_error(
        net[0], net[2], start, unseen
    )
    for name, weight in tuned.weights.items():
        assert (weight.bits, weight.codes.shape, weight.scale.shape) == (
            2,
            start[name].codes.shape,
            start[name].scale.shape,
        )
        assert weight.codes.min() >= -2
        assert weight.codes.max() < 2


@pytest.mark.parametrize("method", [BRECQ, QDROP])
def test_without_steps_codes_are_those_given_to_the_bit(case, method):
    net, samples, start = case
    kept = []
    assert tune(net, start, samples, method, steps=0, kept=kept).weights == start
    assert kept == []


def test_a_block_that_got_worse_keeps_its_codes(case):
    net, samples, start = case
    wild = Method(rates={"scales": 30.0}, weighted=False)
    tuned = tune(net, start, samples, wild, steps=1)
    ((before, after),) = tuned.errors
    assert after > before
    assert tuned.weights == start


def test_one_sample_is_too_few(case):
    net, _, start = case
    tuned = tune(net, start, Samples(inputs={"x": images(1, 1)}), QDROP)
    assert (tuned.weights, tuned.errors) == (start, ())
    two = tune(net, start, Samples(inputs={"x": images(2, 1)}), QDROP, steps=3)
    assert len(two.errors) == 1


@pytest.mark.parametrize("method", [BRECQ, QDROP])
def test_it_can_be_stopped_and_taken_up_again_to_the_same_bits(method):
    net = build(chain(7)[0], (4, 6, 6), chain(7)[1])
    samples = Samples(
        inputs={"x": np.random.default_rng(1).standard_normal((48, 4, 6, 6)).astype(np.float32)}
    )
    start = by_gptq(*net[1:], samples, 2)
    kept, told = [], []
    options = {"steps": 10, "hooks": {"r1": partial(fake_quantize, grid=activation_grid(0, 3))}}
    whole = tune(net, start, samples, method, kept=kept, on_progress=lambda *at: told.append(at), **options)
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert [len(part.errors) for part in kept] == [1, 2, 3]

    def stop(fraction, _):
        if fraction > 0.4:
            raise CancelledError("stopped")

    before = []
    with pytest.raises(CancelledError):
        tune(net, start, samples, method, kept=before, on_progress=stop, **options)
    assert len(before) == 1
    again = tune(net, start, samples, method, earlier=before[0], **options)
    assert again.errors == whole.errors
    for name, weight in whole.weights.items():
        np.testing.assert_array_equal(weight.codes, again.weights[name].codes)
        np.testing.assert_array_equal(weight.scale, again.weights[name].scale)


def test_curvature_weighs_errors_as_the_loss_does(case):
    net, samples, start = case
    drawn = []

    def watched(values, batch, chance):
        drawn.append(batch.count)
        return draw(values, batch, chance)

    tune(net, start, samples, BRECQ, steps=2, probe=Probe(watched, ("y",)))
    assert sum(drawn) >= samples.count - 16
    drawn.clear()
    tune(net, start, samples, QDROP, steps=2, probe=Probe(watched, ("y",)))
    assert drawn == []


def test_what_the_loss_reads_counts_and_not_what_is_made_of_it():
    rng, samples = np.random.default_rng(0), Samples(inputs={"x": images(256, 1)})
    weights = {"w1": rng.standard_normal((192, 24)) / 14, "w2": rng.standard_normal((24, 5)) / 5}
    tuned = []
    for logits, ending in (("y", []), ("z", [helper.make_node("Softmax", ["z"], ["y"])])):
        nodes = [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("MatMul", ["f", "w1"], ["a"], name="one"),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("MatMul", ["r", "w2"], [logits], name="two"),
        ]
        net = build([*nodes, *ending], (3, 8, 8), weights)
        start = by_gptq(*net[1:], samples, 2)
        probe = Probe(lambda values, _, chance, of=logits: draw({"y": values[of]}, _, chance), (logits,))
        tuned.append(tune(net, start, samples, BRECQ, steps=60, probe=probe, hooks={}).weights)
        assert any((tuned[-1][name].codes != start[name].codes).any() for name in start)
    for name, weight in tuned[0].items():
        np.testing.assert_array_equal(weight.codes, tuned[1][name].codes)


@pytest.mark.parametrize("method", [BRECQ, QDROP])
def test_numbers_of_classes_among_the_outputs_change_nothing(case, method):
    net, samples, start = case
    proto = onnx.ModelProto.FromString(net[0].SerializeToString())
    proto.graph.node.append(helper.make_node("ArgMax", ["y"], ["class"], axis=1))
    proto.graph.output.insert(0, helper.make_tensor_value_info("class", onnx.TensorProto.INT64, None))
    model = normalise(ir.from_proto(proto))
    told = proto, model, find_layers(model), compile_model(model)
    plain, found = (tune(each, start, samples, method, steps=20) for each in (net, told))
    assert found.errors == plain.errors
    for name, weight in plain.weights.items():
        np.testing.assert_array_equal(found.weights[name].codes, weight.codes)


def test_blocks_that_the_loss_does_not_read_are_not_weighed(case):
    net, samples, start = case

    def nothing(values, _, chance):
        return values["x"].sum()

    found = tune(net, start, samples, BRECQ, steps=2, probe=Probe(nothing, ("x",)))
    assert set(found.weights) == set(start)


def test_an_error_that_is_no_number_names_a_layer(case):
    net, samples, start = case
    with pytest.raises(NonFiniteError, match="tuned") as caught:
        tune(net, start, samples, QDROP, hooks={"r1": lambda x: x * float("nan")})
    assert caught.value.where in {"first", "second", "third"}


def test_a_batch_that_the_graph_demands_stays_together(case):
    net, _, start = case
    samples = Samples(inputs={"x": images(12, 1)}, batch=4)
    seen = []

    def watched(values, batch, chance):
        seen.append(batch.count)
        return draw(values, batch, chance)

    tune(net, start, samples, BRECQ, steps=3, probe=Probe(watched, ("y",)))
    assert set(seen) == {4}
