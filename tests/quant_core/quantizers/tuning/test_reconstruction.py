"""Tuned codes reproduce the float net on samples they never saw, and in one layer come close to the best there are."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import helper

from quant_core.calibration import Samples
from quant_core.errors import NonFiniteError
from quant_core.executor import compile_model
from quant_core.quantizers import quantize_weight
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.simulation.network import Simulation
from quant_core.quantizers.tuning import reconstruction
from quant_core.quantizers.tuning.learned_codes import LearnedCodes
from quant_core.quantizers.tuning.reconstruction import reconstruct
from quant_core.quantizers.tuning.tuning_samples import share
from tests.quant_core.quantizers.moments.test_read_positions import padded, tokens
from tests.quant_core.quantizers.tuning.small_nets import build, by_gptq, images, output_error, small_net


def tune(model, layers, program, weights, samples, *, steps=150, seed=0, on_progress=lambda *_: None):
    return reconstruct(
        FloatNetwork(program, model, layers, 16),
        weights,
        Simulation(model, layers, weights, {}, ()),
        samples,
        ("y",),
        steps=steps,
        seed=seed,
        on_progress=on_progress,
    )


def test_unseen_samples_come_out_closer_than_by_gptq():
    proto, model, layers, program = small_net()
    samples = Samples(inputs={"x": images(256, 1)})
    start = by_gptq(model, layers, program, samples, 2)
    tuned = tune(model, layers, program, start, samples)
    assert tuned.after < tuned.before
    unseen = images(200, 2)
    ours = output_error(proto, layers, tuned.weights, unseen)
    assert ours < 0.9 * output_error(proto, layers, start, unseen)
    for name, weight in tuned.weights.items():
        assert (weight.bits, weight.axis, weight.codes.shape) == (
            2,
            start[name].axis,
            start[name].codes.shape,
        )
        assert weight.scale.shape == start[name].scale.shape
        assert (weight.scale * start[name].scale).min() > 0
        assert weight.codes.min() >= -2
        assert weight.codes.max() < 2


def test_same_seed_gives_the_same_bits():
    _, model, layers, program = small_net()
    samples = Samples(inputs={"x": images(256, 1)})
    start = by_gptq(model, layers, program, samples, 2)
    first, again, other = (
        tune(model, layers, program, start, samples, steps=45, seed=seed).weights for seed in (0, 0, 1)
    )
    for name, weight in first.items():
        np.testing.assert_array_equal(weight.codes, again[name].codes)
        np.testing.assert_array_equal(weight.scale, again[name].scale)
    assert any((first[name].scale != other[name].scale).any() for name in first)


def test_one_layer_comes_close_to_the_best_of_all_codes(monkeypatch):
    monkeypatch.setattr(reconstruction, "_HOPE", -np.inf)  # its step is right, its codes are not
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((1, 6))
    _, model, layers, program = build(
        [helper.make_node("Gemm", ["x", "w"], ["y"], name="layer", transB=1)], (6,), {"w": weight}
    )
    white = rng.standard_normal((256, 6))
    mixing = np.eye(6) + 0.6 * rng.standard_normal((6, 6))
    samples = Samples(inputs={"x": (white @ mixing).astype(np.float32)})
    start = {"layer": quantize_weight(weight, 2, 0)}
    tuned = tune(model, layers, program, start, samples, steps=400).weights["layer"]

    def error(values):
        return float(np.square(samples.inputs["x"].astype(np.float64) @ (values - weight[0])).mean())

    best = min(error(np.array(codes) * start["layer"].scale[0]) for codes in product(range(-2, 2), repeat=6))
    assert error(start["layer"].dequantize()[0]) > 3 * best
    assert error(tuned.dequantize()[0]) < 1.5 * best


def test_what_is_not_better_is_not_taken():
    _, model, layers, _ = small_net()
    exact = {
        layer.name: quantize_weight(model.graph.initializers[layer.weight].const_value.numpy(), 4, 0)
        for layer in layers
    }
    for layer in layers:
        model.graph.initializers[layer.weight].const_value = ir.tensor(exact[layer.name].dequantize())
    kept = tune(model, layers, compile_model(model), exact, Samples(inputs={"x": images(32, 1)}), steps=30)
    assert kept.before == kept.after <= 1e-11
    assert not kept.better
    assert kept.weights == exact


def test_error_told_is_that_of_activations_and_outputs():
    _, model, layers, program = small_net()
    samples = Samples(inputs={"x": images(16, 1)})
    start = by_gptq(model, layers, program, samples, 2)
    _, judges = share(samples)
    feeds = {"x": torch.from_numpy(judges.inputs["x"])}
    values = {
        n: torch.from_numpy(v)
        for layer in layers
        for n, v in start[layer.name].stand_ins(layer.weight).items()
    }
    names = ("r1", "f", "y")
    exact, found = program.evaluate(feeds, names), program.evaluate(feeds, names, weights=values)
    errors = {
        n: (exact[n] - found[n]).square().flatten(1).sum(1) / exact[n].square().sum() * len(exact[n])
        for n in names
    }
    expected = float((((errors["r1"] + errors["f"]) / 2).log() + errors["y"].log()).mean() / 2)
    before = tune(model, layers, program, start, samples, steps=0).before
    assert before == pytest.approx(np.exp(expected), rel=1e-4)


def scripted(monkeypatch, told):
    """Tell made-up logarithms of four samples' errors; what was judged is kept."""
    told, seen = iter(told), []

    def check(network, *_):
        seen.append(network.results())
        return torch.tensor(next(told), dtype=torch.float32).expand(4), 1.0

    monkeypatch.setattr(reconstruction._Pair, "check", check)
    return seen


def test_the_best_weights_on_the_way_are_kept(monkeypatch):
    _, model, layers, program = small_net()
    samples = Samples(inputs={"x": images(64, 1)})
    start = by_gptq(model, layers, program, samples, 2)
    seen = scripted(monkeypatch, [0.0, 0.1, -0.5, -0.4, -0.2, 0.3, -0.1, 0.0, -0.4])
    tuned = tune(model, layers, program, start, samples, steps=80)
    assert (tuned.before, tuned.after) == pytest.approx((1.0, np.exp(-0.5)))
    assert tuned.better
    for name, weight in tuned.weights.items():
        np.testing.assert_array_equal(weight.scale, seen[2][name].scale)
        assert (weight.scale != seen[-1][name].scale).any()


@pytest.mark.parametrize(
    ("gains", "better"), [((0.1, 0.1, 0.1, 0.08), True), ((0.5, -0.2, -0.1, 0.0), False)]
)
def test_a_gain_within_chance_is_not_taken(monkeypatch, gains, better):
    _, model, layers, program = small_net()
    samples = Samples(inputs={"x": images(64, 1)})
    start = by_gptq(model, layers, program, samples, 2)
    scripted(monkeypatch, [0.0, *[[-gain for gain in gains]] * 8])
    tuned = tune(model, layers, program, start, samples, steps=16)
    assert tuned.after < tuned.before
    assert tuned.better == better
    assert all((tuned.weights[name] is start[name]) != better for name in start)


def test_no_gain_by_a_quarter_of_the_updates_ends_it(monkeypatch):
    _, model, layers, program = small_net()
    samples = Samples(inputs={"x": images(64, 1)})
    start = by_gptq(model, layers, program, samples, 2)
    seen = scripted(monkeypatch, [0.0, 0.1, 0.1])
    done = []
    tuned = tune(
        model, layers, program, start, samples, steps=80, on_progress=lambda share, _: done.append(share)
    )
    assert done[-1] == 0.25
    assert tuned.weights == start
    for name, weight in start.items():  # until then scales and biases move alone
        np.testing.assert_array_equal(seen[-1][name].codes, weight.codes)
        assert (seen[-1][name].scale != weight.scale).any()


def test_padding_does_not_count():
    model, layers, program = tokens(masked=True)
    errors = []
    for scale in (1.0, 50.0):
        weights = {
            layer.name: quantize_weight(model.graph.initializers[layer.weight].const_value.numpy(), 3, 1)
            for layer in layers
        }
        errors.append(tune(model, layers, program, weights, padded(scale), steps=12))
    assert errors[0].before == pytest.approx(errors[1].before, rel=1e-5)
    assert errors[0].after == pytest.approx(errors[1].after, rel=5e-3)


def test_layers_without_codes_stay_in_float():
    _, model, layers, program = small_net()
    samples = Samples(inputs={"x": images(32, 1)})
    start = by_gptq(model, layers, program, samples, 2)
    del start["second"]
    assert set(tune(model, layers, program, start, samples, steps=20).weights) == {"first", "third"}


def test_a_batch_that_the_graph_demands_stays_together(monkeypatch):
    _, model, layers, program = small_net()
    x = np.repeat(np.arange(10, dtype=np.float32), 4)[:, None, None, None] + np.zeros(
        (1, 3, 8, 8), np.float32
    )
    seen, feeds = [], Samples.feeds

    def watched(batch, *given, **more):
        seen.append(batch.inputs["x"][:, 0, 0, 0].tolist())
        return feeds(batch, *given, **more)

    monkeypatch.setattr(Samples, "feeds", watched)
    samples = Samples(inputs={"x": x}, batch=4)
    start = by_gptq(model, layers, program, samples, 4)
    tune(model, layers, program, start, samples, steps=9)
    assert all(len(numbers) == 4 and len(set(numbers)) == 1 for numbers in seen)
    assert {numbers[0] for numbers in seen} == set(range(10))


def test_an_error_that_is_no_number_is_an_error():
    _, model, layers, program = small_net()
    samples = Samples(inputs={"x": images(32, 1)})
    start = by_gptq(model, layers, program, samples, 3)
    broken = replace(start["second"], scale=start["second"].scale * np.float32(1e30))
    with pytest.raises(NonFiniteError, match="tuned"):
        tune(model, layers, program, start | {"second": broken}, samples, steps=5)


def test_biases_take_up_what_codes_move_the_mean_output_by():
    rng = np.random.default_rng(3)
    weights = {
        "w1": rng.standard_normal((8, 2, 3, 3)),
        "b1": rng.standard_normal(8),
        "w2": rng.standard_normal((8, 5)),
        "b2": rng.standard_normal(5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="grouped", group=2),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], name="product"),
    ]
    _, model, layers, program = build(nodes, (4, 3, 3), weights)
    values = {"x": torch.from_numpy(rng.standard_normal((50, 4, 3, 3)).astype(np.float32)) + 1}
    values |= program.evaluate(values, ["c", "f", "y"])
    for layer, read in zip(layers, ("x", "f"), strict=True):
        start = quantize_weight(weights[layer.weight].astype(np.float32), 3, layer.axis)
        written = values[layer.outputs[0]]
        # Three by three pixels under taps of three by three: every tap reads one pixel of its channel.
        x = values[read]
        mean = x.mean(0).reshape(2, 18) if layer.op == "Conv" else reconstruction._mean(layer, x)
        learned = LearnedCodes(model, layer, start, written, mean=mean)
        fed = {read: x}
        first = program.evaluate(fed, layer.outputs, learned.stand_ins())[layer.outputs[0]]
        with torch.no_grad():
            for kind, step in (("codes", 1.0), ("scales", 0.3)):
                for value in learned.parameters(kind):
                    value += step * torch.from_numpy(rng.standard_normal(value.shape).astype(np.float32))
            learned.project()
            assert (learned.result().codes != start.codes).any()
        moved = program.evaluate(fed, layer.outputs, learned.stand_ins())[layer.outputs[0]]
        assert (moved - first).abs().max() > 0.1
        torch.testing.assert_close(moved.mean(0), first.mean(0), rtol=1e-4, atol=1e-4)


def test_means_are_those_of_the_channels_that_each_group_reads():
    _, _, layers, _ = build(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="grouped", group=2)],
        (4, 5, 5),
        {"w": np.ones((6, 2, 3, 1))},
    )
    value = torch.arange(4.0)[None, :, None, None].expand(7, 4, 5, 5)
    expected = [[0, 0, 0, 1, 1, 1], [2, 2, 2, 3, 3, 3]]
    assert reconstruction._mean(layers[0], value).tolist() == expected
