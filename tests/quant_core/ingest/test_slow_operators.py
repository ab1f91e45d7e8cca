"""Operators with slow kernels are written by others; onnxruntime says that the graph computes the same."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from quant_core.ingest import normalise
from quant_core.ingest.slow_operators import spell_out_slow
from quant_core.pipeline import quantize
from quant_core.preparation import prepare
from quant_core.spec import QuantizeSpec
from tests.networks import network
from tests.quant_core.export.networks import optimized_operators
from tests.quant_core.ingest.normalised import run_model

IMAGE = "g (float[n,4,5,5] x) => (float[n,4,5,5] y)"
SLOPES = {
    "below": [0.25, 0.0, -0.5, 1.0],
    "above": [2.0, 1.5, 1.0, 3.0],
    "both": [0.1, 2.0, -1.0, 1.0],
}
MISH = "s = Softplus(x) t = Tanh(s) y = Mul(x, t)"


def model(text, **constants):
    return network(text, {name: np.asarray(values, np.float32) for name, values in constants.items()})


def spelled_out(proto, x, tolerance=1e-6):
    changed = spell_out_slow(normalise(ir.from_proto(proto)))
    ours = ir.to_proto(changed)
    onnx.checker.check_model(ours, full_check=True)
    (found,), (wanted,) = (run_model(model, {"x": x}) for model in (ours, proto))
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)
    return [node.op_type for node in changed.graph]


def values(*shape):
    return (np.random.default_rng(0).standard_normal(shape) * 3).astype(np.float32)


@pytest.mark.parametrize(
    ("slopes", "left"),
    [
        ("below", ["BatchNormalization", "Relu", "Add"]),
        ("above", ["BatchNormalization", "Relu", "BatchNormalization", "Add"]),
        ("both", ["BatchNormalization", "Relu", "BatchNormalization", "Add"]),
    ],
)
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1)])
def test_slopes_of_channels(slopes, left, shape):
    proto = model(f"{IMAGE} {{ y = PRelu(x, a) }}", a=np.reshape(SLOPES[slopes], shape))
    assert spelled_out(proto, values(2, 4, 5, 5)) == left


def test_one_slope_is_a_leaky_relu():
    proto = model(f"{IMAGE} {{ y = PRelu(x, a) }}", a=[0.3])
    assert spelled_out(proto, values(2, 4, 5, 5)) == ["LeakyRelu"]


def test_slopes_of_rows_of_numbers():
    proto = model("g (float[n,4] x) => (float[n,4] y) { y = PRelu(x, a) }", a=SLOPES["below"])
    assert spelled_out(proto, values(3, 4)) == ["BatchNormalization", "Relu", "Add"]


def test_slopes_that_are_no_channels_stay():
    proto = model(f"{IMAGE} {{ y = PRelu(x, a) }}", a=np.ones((4, 1, 5)))
    assert spelled_out(proto, values(2, 4, 5, 5)) == ["PRelu"]
    computed = model(f"{IMAGE} {{ a = Abs(x) y = PRelu(x, a) }}")
    assert spelled_out(computed, values(2, 4, 5, 5)) == ["Abs", "PRelu"]


@pytest.mark.parametrize("body", ["y = Mish(x)", MISH, MISH.replace("x, t", "t, x")])
def test_mish_far_from_zero_too(body):
    x = np.linspace(-200, 200, 4 * 25, dtype=np.float32).reshape(1, 4, 5, 5)
    left = spelled_out(model(f"{IMAGE} {{ {body} }}"), x, 1e-5)
    assert left == ["Neg", "Sigmoid", "Mul", "Add", "Div", "Sub", "Mul"]


@pytest.mark.parametrize(
    "body",
    [
        "s = Softplus(x) y = Mul(x, s)",
        "s = Softplus(x) t = Tanh(s) m = Mul(x, t) y = Add(m, t)",
        "n = Neg(x) s = Softplus(n) t = Tanh(s) y = Mul(x, t)",
    ],
)
def test_what_is_no_mish_stays(body):
    assert "Softplus" in spelled_out(model(f"{IMAGE} {{ {body} }}"), values(2, 4, 5, 5))


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    """Convolutions with slopes between them."""
    folder, rng = tmp_path_factory.mktemp("face"), np.random.default_rng(0)
    conv = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>"
    body = f"b = {conv}(x, u) c = PRelu(b, a) d = {conv}(c, v) e = PRelu(d, a) y = {conv}(e, w)"
    proto = model(
        f"g (float[n,16,24,24] x) => (float[n,16,24,24] y) {{ {body} }}",
        a=rng.uniform(0, 0.5, (16, 1, 1)),
        **{name: rng.standard_normal((16, 16, 3, 3)) / 12 for name in "uvw"},
    )
    onnx.save(proto, folder / "m.onnx")
    np.savez(folder / "s.npz", x=values(24, 16, 24, 24))
    return folder


def test_slopes_run_on_codes(face, tmp_path):
    spec = QuantizeSpec.model_validate(
        {"size": 2**40, "bits": [8], "rounding": "nearest", "float_islands": 0}
    )
    report = quantize(face / "m.onnx", face / "s.npz", spec, tmp_path / "out")
    assert report.metrics.sqnr_db > 25
    operators = optimized_operators(tmp_path / "out" / "model.onnx")
    assert set(operators) <= {"QuantizeLinear", "DequantizeLinear", "Transpose", "QLinearConv", "QLinearAdd"}


def test_files_for_gpus_keep_the_operator(face):
    spec = QuantizeSpec.model_validate({"size": 2**40, "bits": [8], "target": "tensorrt"})
    job = prepare(face / "m.onnx", face / "s.npz", spec)
    assert [node.op_type for node in job.model.graph] == ["Conv", "PRelu", "Conv", "PRelu", "Conv"]
