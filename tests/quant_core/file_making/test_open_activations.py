"""Activation bits chosen layer by layer on a small network: scores, whole plans, files and the report."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from quant_core.calibration import choose_range
from quant_core.export import export_model, place
from quant_core.file_making.open_activations import open_activations
from quant_core.pipeline import quantize
from quant_core.preparation import prepare
from quant_core.preparation.open_widths import layers_at
from quant_core.quantizers import Simulation, activation_grid, quantize_weight
from quant_core.sensitivity import Objective, Term, split_batches
from quant_core.spec import QuantizeSpec
from quant_core.spec.width import width_of
from quant_core.trials import PlanMeter
from tests.networks import drawn, network

SPEC = {"bops": 0.03, "bits": [4, 8], "activation_bits": "4,8,16,float", "rounding": "nearest"}
OBJECTIVE = Objective((Term("y", "y", "squared_error"),))


def quiet(fraction, message):
    pass


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("open"), np.random.default_rng(0)
    shapes = {"w1": (8, 4, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (8, 4), "b3": (4,)}
    model = network(
        """net (float[n, 4, 6, 6] x) => (float[n, 4] y) {
        [one] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
        [bend] h = Relu(a)
        [two] b = Conv<pads=[1,1,1,1]>(h, w2, b2)
        [join] s = Add(b, h)
        [pool] p = GlobalAveragePool(s)
        [flat] f = Flatten(p)
        [head] y = Gemm(f, w3, b3)
    }""",
        {name: rng.normal(size=shape) / np.sqrt(np.prod(shape[1:])) for name, shape in shapes.items()},
    )
    onnx.save(model, folder / "net.onnx")
    np.savez(folder / "x.npz", x=rng.normal(size=(64, 4, 6, 6)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def opened(given):
    spec = QuantizeSpec.model_validate(SPEC)
    job = prepare(given / "net.onnx", given / "x.npz", spec)
    return job, open_activations(job, job.samples, spec, quiet)


def batches(job):
    feeds = {name: torch.from_numpy(array) for name, array in job.samples.inputs.items()}
    return split_batches(feeds, None, sample_bytes=100, seed=0, clusters=1)


def squared_error(job, outputs):
    before = job.program.evaluate({n: torch.from_numpy(a) for n, a in job.samples.inputs.items()})
    rows = [
        OBJECTIVE.rows(values, job.samples.count) for values in ({"y": torch.from_numpy(outputs)}, before)
    ]
    return float(OBJECTIVE.per_sample(*rows, None).mean())


def test_a_plan_rounds_what_its_bits_of_weights_let_it_round(given):
    # 8-bit codes with zero points have no integer kernel, those of 4 bits have one.
    spec = QuantizeSpec.model_validate({**SPEC, "symmetric": False, "layer_activations": {"two": 8}})
    job = prepare(given / "net.onnx", given / "x.npz", spec)
    activations = open_activations(job, job.samples, spec, quiet)
    for bits in (4, 8, 4):
        widths = {layer.name: bits if layer.name == "two" else width_of(4, 32) for layer in job.layers}
        assert bool(activations.rounding(widths)) == (bits == 4)


@pytest.mark.parametrize(
    "bits", [(8, 8, 8), (16, 8, 32), (32, 16, 16), (16, 16, 16), (8, 32, 8), (32, 32, 32)], ids=str
)
def test_a_plan_measures_what_its_file_loses(opened, bits, tmp_path):
    job, activations = opened
    layers = {layer.name: layer for layer in job.layers}
    widths = {name: width_of(8, own) for name, own in zip(layers, bits, strict=True)}
    rounded = {
        name: {
            8: quantize_weight(job.model.graph.initializers[layer.weight].const_value.numpy(), 8, layer.axis)
        }
        for name, layer in layers.items()
    }
    meter = PlanMeter(activations.program, job.layers, OBJECTIVE, batches(job), rounded, activations.rounding)
    weights = {name: found[8] for name, found in rounded.items()}
    placement = place(job.model, layers_at(job.layers, widths), dict.fromkeys(layers, 8), 8, job.target)
    grids = {}
    for name in placement.points:
        own = 16 if name in placement.wide else 8
        grids[name] = activation_grid(*choose_range(activations.ranges[name], "mse", own), own)
    onnx.save(export_model(job.model, job.layers, weights, placement, grids), tmp_path / "q.onnx")
    (answers,) = onnxruntime.InferenceSession(tmp_path / "q.onnx").run(None, dict(job.samples.inputs))
    # Ties of an 8-bit grid may fall to either side.
    assert meter.loss(widths).mean == pytest.approx(squared_error(job, answers), rel=0.1)


def test_shares_of_all_layers_add_up_to_every_tensor_once(opened):
    job, activations = opened
    scores = activations.scores(OBJECTIVE, batches(job), quiet)
    tensors = {
        name for layer in job.layers for name in activations._asked(layer)[8]
    }  # what some layer alone has rounded
    grids = {name: activation_grid(*choose_range(activations.ranges[name], "mse"), 8) for name in tensors}
    each = {
        name: squared_error(
            job, Simulation(job.model, job.layers, {}, {name: grid}, ()).run(job.samples.inputs)["y"]
        )
        for name, grid in grids.items()
    }
    assert sum(score[8] for score in scores.values()) == pytest.approx(sum(each.values()), rel=1e-3)
    for score in scores.values():
        assert score[32] == 0
        assert score[16] < 0.01 * score[8] < score[8] < score[4]
    two = next(layer.name for layer in job.layers if layer.weight == "w2")
    narrow = activation_grid(*choose_range(activations.ranges["h"], "mse", 4), 4)
    lost = squared_error(
        job, Simulation(job.model, job.layers, {}, {"h": narrow}, ()).run(job.samples.inputs)["y"]
    )
    assert scores[two][4] - scores[two][8] == pytest.approx(lost - each["h"], rel=1e-3)


def test_layers_that_are_slow_in_integers_are_not_asked(tmp_path):
    rng = np.random.default_rng(0)
    model = network(
        """net (float[n, 2, 16] x) => (float[n, 1, 16] y) {
        [one] a = Conv<pads=[2,2]>(x, w1)
        [groups] b = Conv<pads=[1,1], group=8>(a, w2)
        [bend] h = LeakyRelu(b)
        [up] y = ConvTranspose(h, w3)
    }""",
        drawn(rng, {"w1": (8, 2, 5), "w2": (16, 1, 3), "w3": (16, 1, 1)}),
    )
    onnx.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(32, 2, 16)).astype(np.float32))
    spec = QuantizeSpec.model_validate(SPEC | {"bops": 1.0})
    report = quantize(tmp_path / "net.onnx", tmp_path / "x.npz", spec, tmp_path / "out")
    forms = {layer.name: layer.form for layer in report.layers}
    assert forms["groups"] == forms["up"] == "weight_only"


def test_the_report_tells_what_is_real_and_what_is_simulated(given, tmp_path):
    report = quantize(given / "net.onnx", given / "x.npz", QuantizeSpec.model_validate(SPEC), tmp_path)
    macs = {layer.name: layer.macs for layer in report.layers}
    counted = sum(
        macs[layer.name] * layer.bits * (layer.activation_bits or 32) for layer in report.plan.layers
    )
    assert report.plan.costs["bops"] == counted <= report.plan.limits["bops"]
    planned = {layer.name: layer.activation_bits for layer in report.plan.layers}
    assert 4 in planned.values()
    assert {layer.activation_bits for layer in report.layers} <= {8, 16, 32}
    assert any("exist in simulation" in warning for warning in report.warnings)
    types = {i.data_type for i in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert onnx.TensorProto.UINT4 not in types
    rows = json.loads((tmp_path / "sensitivity.json").read_text())["layers"]
    assert all(set(row["activation_sensitivity"]) == {"4", "8", "16", "32"} for row in rows)
    chosen = next(trial for trial in report.trials if trial.chosen)
    assert all(chosen.measured_loss <= trial.measured_loss for trial in report.trials)


def test_one_number_of_bits_is_not_a_choice(given, tmp_path):
    spec = {"size": 0.8, "bits": [4, 8], "activation_bits": [8], "rounding": "nearest"}
    quantize(given / "net.onnx", given / "x.npz", QuantizeSpec.model_validate(spec), tmp_path / "a")
    quantize(
        given / "net.onnx",
        given / "x.npz",
        QuantizeSpec.model_validate({name: v for name, v in spec.items() if name != "activation_bits"}),
        tmp_path / "b",
    )
    assert (tmp_path / "a" / "model.onnx").read_bytes() == (tmp_path / "b" / "model.onnx").read_bytes()
