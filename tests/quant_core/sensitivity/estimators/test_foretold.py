from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import quantize_weight
from quant_core.sensitivity import Objective, Term, output, split_batches
from quant_core.sensitivity.estimators import foretold
from quant_core.sensitivity.estimators.foretold import _few_samples, _own_errors, _walked
from quant_core.sensitivity.float_run import float_runs, stand_in_tensors
from tests.networks import network

BITS = (2, 3, 4, 5, 6, 8)


def walked(change: Callable[[float], float], errors: list[float]) -> tuple[list[float], list[bool]]:
    """Mean changes and which were measured, where an error of e changes the loss of four samples by `change(e)`."""
    samples = torch.tensor([0.5, 1.5, 0.9, 1.1], dtype=torch.float64)
    found = _walked(errors, lambda k, _: samples * change(errors[k]), 1)
    return [float(part.mean()) for part, _ in found], [measured for _, measured in found]


def test_a_loss_of_second_order_takes_two_measurements_in_any_order_of_widths() -> None:
    errors = [0.01, 4.0, 1.0, 0.25, 0.06]
    means, measured = walked(lambda e: 3 * e, errors)
    assert means == pytest.approx([3 * e for e in errors])
    assert measured == [False, True, True, False, False]


def test_a_loss_that_saturates_is_measured_until_it_does_no_more() -> None:
    errors = [64.0, 16.0, 4.0, 1.0, 0.25, 0.06]
    means, measured = walked(lambda e: e / (1 + e), errors)
    assert measured == [True, True, True, True, True, False]
    assert means[-1] == pytest.approx(0.06 / 1.06, rel=0.25)


def test_a_loss_that_falls_is_measured_throughout() -> None:
    errors = [4.0, 1.0, 0.25]
    means, measured = walked(lambda e: -e, errors)
    assert measured == [True, True, True]
    assert means == [-e for e in errors]


def in_parts(
    change: Callable[[float], float], errors: list[float]
) -> tuple[list[Any], list[tuple[int, int]]]:
    """The same for a batch of two and of four samples, with what was measured of which part."""
    parts = torch.tensor([0.8, 1.2]).double(), torch.tensor([0.5, 1.5, 0.9, 1.1]).double()
    asked: list[tuple[int, int]] = []

    def measured(k: int, part: int) -> torch.Tensor:
        asked.append((k, part))
        return parts[part] * change(errors[k])

    return _walked(errors, measured, 2), asked


def test_of_two_parts_the_second_takes_one_measurement_where_widths_agree_on_the_first() -> None:
    errors = [0.25, 4.0, 1.0]
    found, asked = in_parts(lambda e: 3 * e, errors)
    assert asked == [(1, 0), (2, 0), (2, 1)]
    for e, (change, _) in zip(errors, found, strict=True):
        assert change.tolist() == pytest.approx([3 * e * s for s in (0.8, 1.2, 0.5, 1.5, 0.9, 1.1)])
    assert [measured for _, measured in found] == [False, True, True]
    found, _ = in_parts(lambda e: e**0.9, errors)
    assert float(found[1][0].mean()) == pytest.approx(4**0.9)  # as the widths compare, not as their errors do


def test_of_two_parts_both_are_measured_where_widths_do_not_agree() -> None:
    errors = [64.0, 16.0, 4.0, 1.0, 0.25, 0.06]
    found, asked = in_parts(lambda e: e / (1 + e), errors)
    assert asked == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1)]
    assert [measured for _, measured in found] == [True, True, True, True, True, False]
    assert float(found[1][0].mean()) == pytest.approx(16 / 17)


def calls(net: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted = [0]
    plain = net.program.evaluate

    def evaluate(*args: Any, **more: Any) -> Any:
        counted[0] += "y" in (more.get("outputs") or ())
        return plain(*args, **more)

    monkeypatch.setattr(net.program, "evaluate", evaluate)
    return counted


@pytest.mark.parametrize("kind", ["kl", "squared_error"])
def test_few_runs_of_the_network_give_nearly_what_all_of_them_do(
    tiny: Any, samples: torch.Tensor, rounded: Any, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = tiny("Tanh", hidden=96)
    quantized = [[rounded(weight, bits) for bits in BITS] for weight in net.weights.values()]
    batches = split_batches({"x": samples}, None, sample_bytes=1, seed=0, clusters=1, largest=16)
    arguments = (net.program, net.layers, Objective((Term("y", "y", kind),)), batches, quantized)
    whole = output(*arguments)
    counted = calls(net, monkeypatch)
    found = output(*arguments, foretell=True)
    # The runs of the last layer alone are those of the network; each batch is run in three parts.
    assert counted[0] < 3 * len(batches) * (1 + len(BITS) * (len(net.layers) + 1)) * 0.85
    same = np.isclose(found.increase, whole.increase, rtol=1e-4)
    assert same[:, 1].all()  # the second width is always measured on all samples
    # What the first loses on the other half is told by how it stands to the second on eight samples.
    np.testing.assert_allclose(found.increase[:, 0], whole.increase[:, 0], rtol=0.5)
    assert not same.all()
    # Three outputs of five inputs are few directions for an error to point in.
    assert np.median(np.abs(np.log(found.increase / whole.increase)[~same])) < np.log(1.6)
    assert "scores follow from coarser widths" in found.stopped


def test_half_of_the_samples_are_measured_where_the_last_layers_tell_of_the_others(
    rounded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    names = [f"w{i}" for i in range(16)]
    weights = {name: rng.normal(0, 0.12, (40, 40)).astype(np.float32) for name in names}
    steps = " ".join(f"m{i} = MatMul(h{i}, w{i}) h{i + 1} = Add(h{i}, m{i})" for i in range(16))
    model = network(f"net (float[n, 40] h0) => (float[n, 40] y) {{ {steps} y = Identity(h16) }}", weights)
    normal = normalise(ir.serde.deserialize_model(model))
    program, layers = compile_model(normal), find_layers(normal)
    # Samples of different size cost all layers more or less alike.
    x = torch.from_numpy((rng.normal(size=(24, 40)) * rng.uniform(0.3, 2, (24, 1))).astype(np.float32))
    batches = split_batches({"h0": x}, None, sample_bytes=1, seed=0, clusters=1, largest=24)
    quantized = [[rounded(program.weights[layer.weight], bits) for bits in (2, 3, 4)] for layer in layers]
    arguments = (program, layers, Objective((Term("y", "y", "squared_error"),)), batches, quantized)
    whole = output(*arguments)
    sizes: list[int] = []
    plain = program.evaluate

    def evaluate(feeds: Any, *args: Any, **more: Any) -> Any:
        found = plain(feeds, *args, **more)
        sizes.extend(len(found["y"]) for _ in range("y" in found and more.get("weights") is not None))
        return found

    monkeypatch.setattr(program, "evaluate", evaluate)
    found = output(*arguments, foretell=True)
    # Twelve layers take 3 samples of the first width and 12 of the second, the last four 12 and 24.
    assert sum(sizes) == 12 * (3 + 12) + 4 * (12 + 24)
    assert np.std(np.log(found.increase / whole.increase)) < 0.3
    assert np.abs(np.log(found.increase / whole.increase)).max() < 0.7


def test_a_loss_by_labels_is_measured_throughout(tiny: Any, samples: torch.Tensor, rounded: Any) -> None:
    net = tiny("Tanh", hidden=96)
    quantized = [[rounded(weight, bits) for bits in BITS] for weight in net.weights.values()]
    batches = split_batches({"x": samples}, torch.arange(96) % 3, sample_bytes=1, seed=0)
    objective = Objective((Term("y", "y", "cross_entropy"),))
    arguments = (net.program, net.layers, objective, batches, quantized)
    np.testing.assert_array_equal(output(*arguments, foretell=True).increase, output(*arguments).increase)


def test_some_places_of_a_convolution_compare_its_widths_as_all_do(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 3, 3, 3)).astype(np.float32)
    model = network(
        "net (float[n, 3, 24, 24] x) => (float[n, 8, 22, 22] y) { a = Conv(x, w) y = Relu(a) }",
        {"w": weight},
    )
    normal = normalise(ir.serde.deserialize_model(model))
    program, (layer,) = compile_model(normal), find_layers(normal)
    x = torch.from_numpy(rng.normal(size=(12, 3, 24, 24)).astype(np.float32))
    (batch,) = split_batches({"x": x}, None, sample_bytes=1, seed=0, clusters=1)
    objective = Objective((Term("y", "y", "squared_error"),))
    (run,) = float_runs(program, [layer], objective, [batch])
    tensors = [stand_in_tensors(program, layer, quantize_weight(weight, bits, 0)) for bits in (2, 3, 4, 6, 8)]
    assert _few_samples(run, layer, "a") == 1  # 484 places each
    few = np.array(_own_errors(run, layer, tensors))
    monkeypatch.setattr(foretold, "_PLACES", 1 << 30)
    assert _few_samples(run, layer, "a") == 12
    whole = np.array(_own_errors(run, layer, tensors))
    np.testing.assert_allclose(few / few[0], whole / whole[0], rtol=0.15)
    assert (few < whole).all()
