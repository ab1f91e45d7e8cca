"""Where a layer's inputs are looked at does not depend on other layers; what hardly varies is no noise."""

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.calibration import Samples
from quant_core.errors import NonFiniteError
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.feedback import Feedback
from quant_core.quantizers.moments.input_moments import InputMoments, input_moments
from tests.networks import drawn, network


def test_a_layer_draws_the_same_positions_alone_and_beside_others():
    rng = np.random.default_rng(0)
    model = network(
        "net (float[n, 300, 8] x) => (float[n, 300, 8] y) { h = MatMul(x, v) r = Relu(h) y = MatMul(r, w) }",
        drawn(rng, {"v": (8, 8), "w": (8, 8)}),
    )
    normal = normalise(ir.serde.deserialize_model(model))
    layers = find_layers(normal)
    samples = Samples(inputs={"x": rng.normal(size=(32, 300, 8)).astype(np.float32)})

    def moments(some, seed=0):
        program = compile_model(normal)
        return input_moments(FloatNetwork(program, normal, some, 8), some, samples, seed=seed)

    both, alone = moments(layers), moments(layers[1:])
    name = layers[1].name
    assert both[name].columns == 4096  # of 9,600 positions
    assert torch.equal(alone[name].second, both[name].second)
    assert not torch.equal(moments(layers, seed=1)[name].second, both[name].second)


def test_the_first_layer_that_infinity_reaches_is_named_however_small():
    model = network(
        "net (float[n, 4] x) => (float[n, 4] y) { h = MatMul(x, v) r = Relu(h) y = MatMul(r, w) }",
        {"v": np.ones((4, 32)), "w": np.ones((32, 4))},
    )
    normal = normalise(ir.serde.deserialize_model(model))
    layers = find_layers(normal)
    samples = Samples(inputs={"x": np.full((64, 4), np.inf, np.float32)})
    with pytest.raises(NonFiniteError) as told:
        input_moments(FloatNetwork(compile_model(normal), normal, layers, 8), layers, samples, seed=0)
    assert told.value.where == layers[0].name


@pytest.mark.parametrize("columns", [1, 3])
def test_inputs_that_do_not_vary_have_no_covariance_and_are_rounded_all_the_same(columns):
    generator = torch.Generator().manual_seed(0)
    x = 10 * torch.rand(1, 64, 1, generator=generator).expand(1, 64, columns).clone()
    if columns > 1:
        x[:, :2] += torch.randn(1, 2, columns, generator=generator)
    mean = x.mean(2)
    moments = InputMoments(x @ x.transpose(1, 2) / columns, mean, columns, columns)
    covariance = moments.centred().second
    varying = 2 if columns > 1 else 0
    assert bool((covariance[:, varying:] == 0).all() and (covariance[:, :, varying:] == 0).all())
    exact = (x - mean[:, :, None]).double()
    torch.testing.assert_close(
        covariance[:, :varying, :varying].double(),
        (exact @ exact.transpose(1, 2) / columns)[:, :varying, :varying],
        rtol=1e-3,
        atol=1e-4,
    )
    Feedback.of(moments.centred().shrunk())
