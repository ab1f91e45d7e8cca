"""Biases that make up for rounded activations, held against sums written out in numpy."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from quant_core.calibration import Samples
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import ActivationGrid, Simulation, quantize_weight
from quant_core.quantizers.bias_correction.output_means import _helps, correct_means
from quant_core.quantizers.float_network import FloatNetwork
from tests.networks import drawn, network

CONV = "Conv<kernel_shape=[1,1]>"
NETS = {
    "Conv": f"g (float[n,4,5,5] x) => (float[n,6,5,5] y) {{ y = {CONV}(x, w, b) }}",
    "Relu": f"g (float[n,4,5,5] x) => (float[n,6,5,5] y) {{ a = {CONV}(x, w, b) y = Relu(a) }}",
    "Clip": f"g (float[n,4,5,5] x) => (float[n,6,5,5] y) {{ a = {CONV}(x, w, b) y = Clip(a, zero, one) }}",
    "Gemm": "g (float[n,4] x) => (float[n,6] y) { y = Gemm(x, w, b) }",
    "MatMul": "g (float[n,5,4] x) => (float[n,5,6] y) { a = MatMul(x, w) y = Add(a, b) }",
}
LIMITS = {"Relu": (0, np.inf), "Clip": (0, 1)}
CLIPPING = ActivationGrid(scale=1.5 / 255, zero_point=0)
"""Cuts off what is below 0 and above 1.5."""


class Job:
    """A net whose first inputs are cut off, with 8-bit weights."""

    def __init__(self, text, grids=None, seed=0, count=64, **shapes):
        rng = np.random.default_rng(seed)
        proto = network(text, drawn(rng, shapes))
        for name, value in {"zero": 0.0, "one": 1.0}.items():
            if f" {name}" in text:
                proto.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
        self.model = normalise(ir.from_proto(proto))
        self.layers = find_layers(self.model)
        self.program = compile_model(self.model)
        self.values = {
            name: value.const_value.numpy() for name, value in self.model.graph.initializers.items()
        }
        self.weights = {
            layer.name: quantize_weight(self.values[layer.weight], 8, layer.axis) for layer in self.layers
        }
        self.grids = {"x": CLIPPING} if grids is None else grids
        shape = [count, *(int(size) for size in list(self.model.graph.inputs[0].shape)[1:])]
        self.x = (rng.standard_normal(shape) + 2).astype(np.float32)

    def simulate(self, weights):
        return Simulation(self.model, self.layers, weights, self.grids, ())

    def corrected(self, batch_size=8):
        return correct_means(
            FloatNetwork(self.program, self.model, self.layers, batch_size),
            self.model,
            self.layers,
            self.weights,
            Samples(inputs={"x": self.x}),
            self.simulate,
        )


def product(name, x, w):
    if name in {"Gemm", "MatMul"}:
        return x @ w
    return np.einsum("nchw,oc->nohw", x, w[:, :, 0, 0])


@pytest.mark.parametrize("name", NETS)
def test_a_bias_takes_the_step_that_numpy_finds(name):
    dense = name in {"Gemm", "MatMul"}
    job = Job(NETS[name], w=(4, 6) if dense else (6, 4, 1, 1), b=(6,))
    found = job.corrected()
    assert found is not None
    (layer,) = job.layers
    x, w, b = job.x.astype(np.float64), job.values["w"].astype(np.float64), job.values["b"].astype(np.float64)
    axis = -1 if dense else 1
    bias = b if dense else b.reshape(-1, 1, 1)
    rounded = np.clip(np.rint(x / CLIPPING.scale), 0, 255) * CLIPPING.scale
    wanted = product(name, x, w) + bias
    given = product(name, rounded, job.weights[layer.name].dequantize().astype(np.float64)) + bias
    low, high = LIMITS.get(name, (-np.inf, np.inf))
    inside = (given > low) & (given < high)
    off = np.where(inside, np.clip(given, low, high) - np.clip(wanted, low, high), 0)
    rest = tuple(dim for dim in range(1, off.ndim) if dim != axis % off.ndim)
    sums, counts = off.sum(rest), inside.sum(rest)
    total = np.maximum(counts.sum(0), 1)  # a channel may be dead
    mean = sums.sum(0) / total
    error = ((sums - mean * counts) ** 2).sum(0) * 64 / 63 / total**2
    expected = b - mean * np.maximum(0, 1 - error / np.maximum(mean**2, 1e-30))
    assert np.abs(mean).max() > 0.1
    np.testing.assert_allclose(found[layer.name].bias.values, expected, rtol=5e-4, atol=2e-4)  # in float16
    np.testing.assert_array_equal(found[layer.name].codes, job.weights[layer.name].codes)


def test_layers_see_those_before_them_corrected():
    text = f"g (float[n,4,5,5] x) => (float[n,3,5,5] y) {{ a = {CONV}(x, w, b) y = {CONV}(a, v, c) }}"
    job = Job(text, w=(6, 4, 1, 1), b=(6,), v=(3, 6, 1, 1), c=(3,))
    found = job.corrected(batch_size=64)
    first, second = (found[layer.name].bias.values for layer in job.layers)
    assert np.abs(first - job.values["b"]).max() > 0.1
    # The first layer gives the right mean, so that nothing is left to the second but its weights' rounding.
    assert np.abs(second - job.values["c"]).max() < 0.1 * np.abs(first - job.values["b"]).max()
    fed = {"x": job.x}
    float_ = job.program.evaluate({"x": torch.from_numpy(job.x)})["y"].numpy()
    after = job.simulate(found).run(fed)["y"]
    before = job.simulate(job.weights).run(fed)["y"]
    assert (
        np.abs((after - float_).mean((0, 2, 3))).max() < 0.2 * np.abs((before - float_).mean((0, 2, 3))).max()
    )


def test_a_simulation_takes_other_biases_and_leaves_the_first_as_it_is():
    job = Job(NETS["Relu"], w=(6, 4, 1, 1), b=(6,))
    found = job.corrected()
    (layer,) = job.layers
    plain, bias = job.simulate(job.weights), found[layer.name].bias
    before = plain.run({"x": job.x})["y"]
    moved = plain.with_biases({bias.name: bias.values})
    assert moved.program is plain.program
    np.testing.assert_array_equal(moved.run({"x": job.x})["y"], job.simulate(found).run({"x": job.x})["y"])
    np.testing.assert_array_equal(plain.run({"x": job.x})["y"], before)


def test_what_does_not_help_on_other_samples_changes_nothing():
    even = {"x": ActivationGrid(scale=3 / 255, zero_point=128)}
    job = Job(NETS["Gemm"], even, w=(4, 6), b=(6,))
    assert job.corrected() is not None
    job.x[1::2] *= -1  # what the grid cuts off of one half has the other sign in the other
    assert job.corrected() is None


def test_few_samples_tell_nothing():
    assert Job(NETS["Gemm"], count=3, w=(4, 6), b=(6,)).corrected() is None


def test_layers_without_a_bias_stay_as_they_are():
    text = "g (float[n,4] x) => (float[n,6] y) { y = MatMul(x, w) }"
    assert Job(text, w=(4, 6)).corrected() is None


def test_one_answer_that_tips_over_does_not_decide_about_all_others():
    before = np.full(12, 0.01)
    after = np.array([0.0025] * 4 + [0.002] * 4 + [0.003] * 3 + [0.1])
    falls = np.stack([before - after, np.log(before / after)])
    assert falls[0].mean() < falls[0].std(ddof=1) / np.sqrt(12)
    assert _helps(falls)
    assert not _helps(np.stack([after - before, np.log(after / before)]))
    after[:3] = 0.1
    assert not _helps(np.stack([before - after, np.log(before / after)]))
