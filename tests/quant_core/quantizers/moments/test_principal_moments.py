import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quant_core.calibration import Samples
from quant_core.errors import NonFiniteError
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.calibration_moments import CalibrationMoments, KeptMoments
from quant_core.quantizers.moments.input_moments import InputMoments, input_moments
from quant_core.quantizers.moments.principal_moments import PrincipalMoments, few_columns, principal_moments
from quant_core.quantizers.moments.rows import to_rows
from quant_core.quantizers.rounding.gptq import gptq
from quant_core.quantizers.rounding.round_weights import round_weights
from quant_core.spec import WeightOptions


def columns(count, inputs, directions, noise, seed=0):
    """Columns that a few directions explain, but for noise."""
    generator = torch.Generator().manual_seed(7)
    mixing = torch.randn(directions, inputs, generator=generator)
    generator.manual_seed(seed)
    x = torch.randn(count, directions, generator=generator) @ mixing / directions**0.5
    return x + noise * torch.randn(count, inputs, generator=generator) + 0.5


def whole(found):
    return (found.factor.T @ found.factor + found.rest.diag() + found.mean.T @ found.mean)[None]


def test_directions_and_diagonal_are_those_of_the_covariance():
    x = columns(300, 600, 20, 0.0)
    found = principal_moments(x.clone(), 10)
    assert found.factor.shape == (160, 600)
    torch.testing.assert_close(whole(found), (x.T @ x / 300)[None], rtol=1e-3, atol=1e-3)
    noisy = columns(300, 600, 20, 0.3)
    found = principal_moments(noisy.clone(), 10)
    covariance = (noisy - noisy.mean(0)).T @ (noisy - noisy.mean(0)) / 300
    diagonal = found.factor.square().sum(0) + found.rest
    torch.testing.assert_close(diagonal, covariance.diagonal(), rtol=1e-3, atol=1e-5)
    # Of all factors of this rank those of the largest eigenvalues keep most of the trace.
    best = torch.linalg.eigvalsh(covariance)[-160:].sum()
    assert 0.97 * best < found.factor.square().sum() <= best


def test_joined_moments_are_those_of_all_columns():
    one, other = columns(100, 600, 10, 0.0), columns(200, 600, 10, 0.0, seed=3) + 0.7
    found = principal_moments(one.clone(), 5).joined(principal_moments(other.clone(), 10))
    x = torch.cat([one, other])
    torch.testing.assert_close(whole(found), (x.T @ x / 300)[None], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.mean[0], x.mean(0), rtol=1e-4, atol=1e-4)
    assert (found.columns, found.samples) == (300, 15)


def test_directions_are_kept_by_how_far_they_stand_out_of_chance():
    x = columns(200, 600, 20, 0.3) - 0.5
    found = principal_moments(x.clone(), 10).centred()
    centred = (x - x.mean(0)).double()
    covariance = centred.T @ centred / 200
    variances, directions = torch.linalg.eigh(covariance)
    kept = variances.clamp_min(0) / (variances.clamp_min(0) + found.chance / 160)
    expected = (directions * kept * variances) @ directions.T
    expected.diagonal().copy_(covariance.diagonal())
    shrunk = found.shrunk()[0].double()
    assert float((shrunk - expected).norm() / expected.norm()) < 0.03
    root = found.feedback()
    damped = shrunk + 0.01 * shrunk.diagonal().mean() * torch.eye(600, dtype=torch.float64)
    torch.testing.assert_close(root.pivots.double().log().sum(), torch.logdet(damped), rtol=1e-4, atol=0)


def test_chance_is_what_directions_of_one_half_lack_in_the_other():
    noise = torch.randn(400, 2000, generator=torch.Generator().manual_seed(2))
    # Of pure noise each of n columns gives a direction an n-th of the whole variance, and none of it comes again.
    assert principal_moments(noise.clone(), 25).chance > 1000
    clear = columns(400, 2000, 20, 0.0) - 0.5
    assert principal_moments(clear.clone(), 25).chance < 0.3 * 2000


def test_layers_with_many_columns_or_few_inputs_are_no_case_for_it():
    assert few_columns(1, 4608, 784, 16)
    assert not few_columns(2, 4608, 784, 16)
    assert not few_columns(1, 256, 40, 2)
    assert not few_columns(1, 1152, 9216, 16)
    assert not few_columns(1, 576, 600, 600)


def build(inputs=64, outputs=24, places=6):
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((outputs, inputs, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="layer", pads=[1, 1, 1, 1])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", inputs, places, places])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs, places, places])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.zeros(outputs, np.float32), "b")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(proto)
    model = normalise(ir.from_proto(proto))
    (layer,) = find_layers(model)
    mixing = rng.standard_normal((8, inputs)).astype(np.float32)

    def images(count, seed):
        draw = np.random.default_rng(seed)
        few = draw.standard_normal((count, 8, places, places)).astype(np.float32)
        noise = draw.standard_normal((count, inputs, places, places)).astype(np.float32)
        return np.einsum("nkhw,kc->nchw", few, mixing) + 0.3 * noise

    return model, layer, weight, compile_model(model), images


def test_codes_of_few_columns_lose_less_on_others_than_by_the_whole_matrix():
    model, layer, weight, program, images = build()
    seen = Samples(inputs={"x": images(10, 1)})
    (found,) = input_moments(FloatNetwork(program, model, [layer], 4), [layer], seen, seed=0).values()
    assert isinstance(found, PrincipalMoments)
    assert found.columns == 360
    fresh = torch.from_numpy(images(60, 2))
    patches = torch.nn.functional.unfold(fresh, 3, padding=1).transpose(1, 2).reshape(-1, 576)
    unseen = (patches.T @ patches / len(patches))[None]
    patches = torch.nn.functional.unfold(torch.from_numpy(seen.inputs["x"]), 3, padding=1)
    patches = patches.transpose(1, 2).reshape(-1, 576)
    dense = InputMoments((patches.T @ patches / 360)[None], patches.mean(0)[None], 360, 10)
    torch.testing.assert_close(found.mean, dense.mean, rtol=1e-4, atol=1e-5)
    lost = []
    for moments in (found, dense):
        (codes,) = gptq(layer, weight, moments, [4]).values()
        error = to_rows(layer, codes.dequantize() - weight)
        lost.append(float(torch.einsum("goi,gij,goj->", error, unseen, error)))
    assert lost[0] < 1.15 * lost[1]


@pytest.mark.parametrize("held", [0, 1 << 29])
def test_more_samples_join_what_was_condensed(held):
    model, layer, weight, program, images = build()
    samples, more = Samples(inputs={"x": images(8, 1)}), Samples(inputs={"x": images(4, 2)})
    kept = KeptMoments(limit=held)

    def rounded(widths, more=None, given=None):
        network = FloatNetwork(program, model, [layer], 3)
        calibration = CalibrationMoments(network, samples, 0, more, kept)
        return round_weights(
            calibration, {"layer": widths}, WeightOptions(), on_progress=lambda *_: None, given=given
        )

    first = rounded([3, 4])
    again = rounded([4], more=more, given=first)
    np.testing.assert_array_equal(again["layer"][4].scale, first["layer"][4].scale)
    parts = [
        input_moments(FloatNetwork(program, model, [layer], 3), [layer], part, seed=0)["layer"]
        for part in (samples, more)
    ]
    moments = parts[0].joined(parts[1])
    bias = again["layer"][4].bias
    (expected,) = gptq(
        layer,
        weight,
        moments,
        [4],
        bias=type(bias)(bias.name, np.zeros(24, np.float32)),
        given=first["layer"],
    ).values()
    np.testing.assert_array_equal(again["layer"][4].codes, expected.codes)


def test_values_that_are_not_finite_are_refused():
    model, layer, _, program, images = build()
    x = images(8, 1)
    x[3, 0, 0, 0] = np.inf
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        input_moments(FloatNetwork(program, model, [layer], 4), [layer], Samples(inputs={"x": x}), seed=0)
