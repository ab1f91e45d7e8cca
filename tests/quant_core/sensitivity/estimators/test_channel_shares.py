"""Shares of the loss by channel, against the loss of each channel rounded alone."""

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import quantize_weight
from quant_core.sensitivity import Batch, Objective
from quant_core.sensitivity.estimators.channel_shares import channel_shares, confirmed_shares
from quant_core.sensitivity.objective import Term
from tests.networks import network

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
g (float[n,4,6,6] x) => (float[n,5] y) {
    a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0) r = Relu(a) b = Conv<kernel_shape=[1,1]>(r, w1)
    t = Tanh(b) p = GlobalAveragePool(t) f = Flatten(p) y = MatMul(f, w2)
}"""
SHAPES = {"w0": (8, 4, 3, 3), "w1": (8, 8, 1, 1), "w2": (8, 5)}


@pytest.fixture(scope="module")
def net():
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in SHAPES.items():
        spread = rng.lognormal(0, 1, shape[0])[:, *[None] * (len(shape) - 1)]
        weights[name] = spread * rng.standard_normal(shape) / 3
    proto = network(TEXT, weights)
    model = normalise(ir.from_proto(proto))
    layers = find_layers(model)
    feeds = {"x": torch.from_numpy(rng.standard_normal((64, 4, 6, 6)).astype(np.float32))}
    return model, layers, compile_model(model), Batch(feeds, None, 64)


@pytest.mark.parametrize("kind", ["kl", "squared_error"])
def test_shares_are_those_of_channels_rounded_alone(net, kind):
    objective = Objective((Term("y", "y", kind),))
    model, layers, program, batch = net
    weights, axes = {}, {"Conv": 0, "MatMul": 1}
    for layer in layers:
        array = model.graph.initializers[layer.weight].const_value.numpy()
        weights[layer.name] = quantize_weight(array, 4, axes[layer.op])
    several = [channel_shares(program, layers, objective, batch, weights, seed) for seed in range(8)]
    with torch.no_grad():
        reference = objective.rows(program.evaluate(batch.feeds, outputs=objective.tensors), 64)
    for layer in layers:
        array = model.graph.initializers[layer.weight].const_value.numpy()
        rounded, axis = weights[layer.name].dequantize(), axes[layer.op]
        lost = []
        for channel in range(array.shape[axis]):
            one = np.array(array)
            at = (slice(None),) * axis + (channel,)
            one[at] = rounded[at]
            with torch.no_grad():
                values = program.evaluate(
                    batch.feeds, outputs=objective.tensors, weights={layer.weight: torch.from_numpy(one)}
                )
                lost.append(float(objective.per_sample(objective.rows(values, 64), reference, None).mean()))
        shares = np.mean([found[layer.name] for found in several], axis=0)
        assert shares.sum() == pytest.approx(1)
        expected = np.array(lost) / sum(lost)
        assert np.corrcoef(np.log(shares), np.log(expected))[0, 1] > 0.8


def test_what_two_halves_share_is_kept():
    rng = np.random.default_rng(0)
    alike = rng.dirichlet(np.full(16, 0.3))
    other = rng.permutation(alike)
    even = np.full(16, 1 / 16)
    first = {"same": alike, "apart": alike, "even": even, "half": alike}
    blurred = 0.5 * alike + 0.5 * other
    found = confirmed_shares(
        first, {"same": alike, "apart": np.roll(alike, 1), "even": even, "half": blurred}
    )
    np.testing.assert_allclose(found["same"], alike)
    assert "even" not in found
    assert all(shares.sum() == pytest.approx(1) for shares in found.values())
    assert found["half"].max() < (alike + blurred).max() / 2


def test_nets_without_such_layers_have_no_shares(net):
    _, _, program, batch = net
    objective = Objective((Term("y", "y", "squared_error"),))
    assert channel_shares(program, [], objective, batch, {}, 0) == {}
