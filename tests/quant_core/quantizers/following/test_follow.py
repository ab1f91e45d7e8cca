"""Rounding that follows, judged on samples that it has not seen."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from quant_core.calibration import Samples
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import Simulation
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.following.follow import FollowedPlan, follow
from quant_core.quantizers.following.places import followed_places
from quant_core.quantizers.moments.calibration_moments import CalibrationMoments
from quant_core.quantizers.moments.input_columns import columns_at
from quant_core.quantizers.moments.rows import to_rows
from quant_core.quantizers.rounding.round_weights import round_weights
from quant_core.spec import WeightOptions

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'
CONV = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>"
DEEP = f"""g (float[n,8,6,6] x) => (float[n,8,6,6] y) {{
    a = {CONV}(x, w0, b0) r = Relu(a) b = {CONV}(r, w1, b1) s = Relu(b) c = {CONV}(s, w2, b2) d = Add(c, x)
    t = Relu(d) y = {CONV}(t, w3)
}}"""
DEEP_SHAPES = {f"w{k}": (8, 8, 3, 3) for k in range(4)} | {f"b{k}": (8,) for k in range(3)}
ROWS = """g (float[n,7,16] x) => (float[n,7,16] y) {
    a = MatMul(x, w0) b = Add(a, b0) r = Relu(b) c = MatMul(r, w1) d = Add(c, b1) s = Relu(d) y = MatMul(s, w2)
}"""
ROWS_SHAPES = {f"w{k}": (16, 16) for k in range(3)} | {"b0": (16,), "b1": (16,)}

EXPERT = """g (float[n,7,16] x) => (float[n,7,16] y)
    <int64[2] rows = {-1, 16}, int64[1] first = {0}, float zero = {0.0}> {
    a = MatMul(x, w0) f = Reshape(a, rows) k = Gather<axis=1>(f, first) p = Greater(k, zero) q = Squeeze(p)
    i = NonZero(q) j = Transpose(i) e = GatherND(f, j) u = MatMul(e, w1) r = Relu(u) d = MatMul(r, w2)
    b = ScatterND<reduction="add">(f, j, d) t = Shape(x) v = Reshape(b, t) y = MatMul(v, w3)
}"""
EXPERT_SHAPES = {f"w{k}": (16, 16) for k in range(4)}


class Job:
    """A net with 3-bit weights, 64 samples to calibrate and 256 to judge."""

    def __init__(self, text, shapes, count=64, bits=3, dynamic=(), seed=0, **options):
        proto = onnx.parser.parse_model(HEADER + text)
        rng = np.random.default_rng(seed)
        for name, shape in shapes.items():
            fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
            values = rng.standard_normal(shape) * (0.1 if len(shape) == 1 else (2 / fan_in) ** 0.5)
            proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        self.model = normalise(ir.from_proto(proto))
        self.layers = find_layers(self.model)
        self.program = compile_model(self.model)
        self.network = FloatNetwork(self.program, self.model, self.layers, 32)
        self.dynamic = dynamic
        self.options = WeightOptions(**options)
        shape = [int(size) for size in list(self.model.graph.inputs[0].shape)[1:]]
        mixed = rng.standard_normal((shape[-1], shape[-1]))
        self.samples, self.unseen = (
            Samples({"x": (rng.standard_normal((n, *shape)) @ mixed).astype(np.float32)})
            for n in (count, 256)
        )
        self.widths = {layer.name: bits for layer in self.layers}
        self.given = round_weights(
            CalibrationMoments(self.network, self.samples, 0),
            {name: [bits] for name in self.widths},
            self.options,
            on_progress=lambda *_: None,
        )
        self.weights = {name: row[bits] for name, row in self.given.items()}

    def simulate(self, weights):
        return Simulation(self.model, self.layers, weights, {}, self.dynamic)

    def followed(self, samples=None, *, look="few"):
        samples = samples or self.samples
        places = followed_places(self.model, self.layers, samples)
        kept = self.weights, self.widths, self.given
        plan = FollowedPlan(self.network, places, *kept, self.simulate, self.options, seed=0)
        return follow(plan, samples, look, on_progress=lambda *_: None)

    def error(self, weights):
        """Relative squared error of the output on samples nobody has seen."""
        expected = self.program.evaluate({"x": torch.from_numpy(self.unseen.inputs["x"])})["y"].numpy()
        given = self.simulate(weights).run(self.unseen.inputs)["y"]
        return ((given - expected) ** 2).sum() / (expected**2).sum()


@pytest.mark.parametrize(
    "options",
    [{}, {"descent": False}, {"bias_correction": False}, {"rounding": "foem"}, {"symmetric": False}],
)
@pytest.mark.parametrize(("text", "shapes"), [(DEEP, DEEP_SHAPES), (ROWS, ROWS_SHAPES)])
def test_outputs_come_closer_to_float(text, shapes, options):
    falls = []
    for seed in range(3):
        job = Job(text, shapes, seed=seed, **options)
        falls.append(job.error(job.followed()) / job.error(job.weights))
    assert np.mean(falls) < 0.97
    assert max(falls) < 1.02


@pytest.mark.parametrize(("text", "shapes"), [(DEEP, DEEP_SHAPES), (ROWS, ROWS_SHAPES)])
def test_mixed_samples_are_followed_as_well(text, shapes):
    falls = []
    for seed in range(3):
        job = Job(text, shapes, seed=seed)
        mixed = job.followed(look="mixed")
        falls.append(job.error(mixed) / job.error(job.weights))
        plain = job.followed()
        assert any((mixed[name].codes != plain[name].codes).any() for name in plain)
    assert np.mean(falls) < 0.97
    assert max(falls) < 1.02


def test_inputs_that_are_rounded_as_it_runs_are_followed():
    job = Job(ROWS, ROWS_SHAPES, dynamic=["w0", "w1", "w2"])
    job.dynamic = [layer.name for layer in job.layers]
    followed = job.followed()
    assert job.error(followed) < 0.97 * job.error(job.weights)


def test_scales_stay_and_codes_repeat():
    job = Job(DEEP, DEEP_SHAPES)
    once, again = job.followed(), job.followed()
    assert [*once] == [*job.weights]
    for name, rounded in once.items():
        np.testing.assert_array_equal(rounded.scale, job.weights[name].scale)
        np.testing.assert_array_equal(rounded.codes, again[name].codes)


def test_nothing_is_followed_where_samples_say_little():
    job = Job(ROWS, ROWS_SHAPES)
    few = job.samples.take(np.arange(15))
    assert followed_places(job.model, job.layers, few) == []
    assert job.followed(few) == job.weights
    fixed = Samples(job.samples.inputs, batch=1)
    assert followed_places(job.model, job.layers, fixed) == []


def test_shared_weights_and_operands_that_change_are_left():
    text = """g (float[n,4,16] x) => (float[n,4,16] y) {
        a = MatMul(x, w0) r = Relu(a) b = MatMul(r, w0) s = Relu(b) c = MatMul(s, w1) y = MatMul(w2, c)
    }"""
    job = Job(text, {"w0": (16, 16), "w1": (16, 16), "w2": (4, 4)})
    assert [place.layer.weight for place in followed_places(job.model, job.layers, job.samples)] == ["w1"]


def test_time_before_samples_is_left_alone():
    text = """g (float[n,7,16] x) => (float[n,7,16] y) {
        t = Transpose<perm=[1,0,2]>(x) a = MatMul(t, w0) r = Relu(a) b = MatMul(r, w1) s = Transpose<perm=[1,0,2]>(b)
        y = MatMul(s, w2)
    }"""
    job = Job(text, {f"w{k}": (16, 16) for k in range(3)}, bits=2)
    followed = job.followed()
    by_weight = {layer.weight: layer.name for layer in job.layers}
    assert followed[by_weight["w0"]] is job.weights[by_weight["w0"]]
    assert followed[by_weight["w1"]] is job.weights[by_weight["w1"]]
    assert followed[by_weight["w2"]] is not job.weights[by_weight["w2"]]


@pytest.mark.parametrize(
    "conv",
    [
        "Conv<kernel_shape=[3,2], strides=[2,1], dilations=[1,2], pads=[1,0,2,1]>",
        "Conv<kernel_shape=[3,2], group=2>",
        'Conv<kernel_shape=[3,2], strides=[2,2], auto_pad="SAME_UPPER">',
    ],
)
def test_columns_give_the_rows_of_the_output(conv):
    groups = 2 if "group" in conv else 1
    job = Job(
        f"g (float[n,4,9,8] x) => (float[n,6,p,q] y) {{ y = {conv}(x, w) }}",
        {"w": (6, 4 // groups, 3, 2)},
        count=5,
    )
    (layer,), (node,) = job.layers, [node for node in job.model.graph if node.op_type == "Conv"]
    x = torch.from_numpy(job.samples.inputs["x"])
    expected = job.program.evaluate({"x": x})["y"].movedim(1, -1).reshape(-1, groups, 6 // groups)
    places = torch.tensor([0, 3, 17, len(expected) - 1])
    weight = job.model.graph.initializers["w"].const_value.numpy()
    found = columns_at(layer, node, x, places) @ to_rows(layer, weight).transpose(1, 2)
    np.testing.assert_allclose(found.transpose(0, 1), expected[places], atol=1e-4)


def test_layers_that_the_first_sample_does_not_reach_are_left():
    # As experts of a mixture, which a router gives rows to.
    text = """g (float[n,16] x) => (float[n,16] y) {
        one = Constant<value_ints=[1]>() t = ReduceSum<keepdims=0>(x, one) p = Relu(t) i = NonZero(p) j = Transpose(i)
        h = MatMul(x, w0) r = GatherND(h, j) e = MatMul(r, w1) z = Sub(h, h) s = ScatterND(z, j, e) a = Add(h, s)
        y = MatMul(a, w2)
    }"""
    job = Job(text, {f"w{k}": (16, 16) for k in range(3)})
    job.samples.inputs["x"][0] = -np.abs(job.samples.inputs["x"][0])
    followed = job.followed()
    left = {layer.weight for layer in job.layers if followed[layer.name] is job.weights[layer.name]}
    assert "w1" in left
    assert "w2" not in left


def test_rows_that_the_network_chooses_are_not_followed():
    """An expert's rows belong to other samples once rounding sends it others."""
    job = Job(EXPERT, EXPERT_SHAPES)
    places = followed_places(job.model, job.layers, job.samples)
    assert [place.layer.weight for place in places] == ["w0", "w3"]
    followed = job.followed()
    kept = [layer.weight for layer in job.layers if followed[layer.name] is job.weights[layer.name]]
    assert kept == ["w1", "w2"]
    assert job.error(followed) < job.error(job.weights)
