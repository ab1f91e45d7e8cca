from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.errors import ModelError, SamplesError
from quant_core.executor import compile_model
from quant_core.ingest.layer import Layer, Use
from quant_core.sensitivity import Batch, split_batches
from quant_core.sensitivity.estimators.orthogonality import ompq_importance, orm


def batches(x: torch.Tensor, size: int = 96) -> Any:
    return split_batches({"x": x}, None, sample_bytes=1, seed=0, largest=size, clusters=1)


def linear_cka(one: torch.Tensor, two: torch.Tensor) -> float:
    """In feature space and through singular values, where `orm` takes Gram matrices of samples."""
    one, two = one.double() - one.double().mean(0), two.double() - two.double().mean(0)
    cross = torch.linalg.svdvals(one.T @ two).square().sum()
    return float(
        cross / (torch.linalg.svdvals(one).pow(4).sum() * torch.linalg.svdvals(two).pow(4).sum()).sqrt()
    )


@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_equals_linear_cka(tiny: Any, samples: torch.Tensor, activation: str) -> None:
    net = tiny(activation)
    similarity = orm(net.program, net.layers, batches(samples))
    values = net.program.evaluate({"x": samples}, outputs=["m", "z"])
    np.testing.assert_allclose(similarity.diagonal(), 1, rtol=1e-12)
    np.testing.assert_array_equal(similarity, similarity.T)
    assert similarity[0, 1] == pytest.approx(linear_cka(values["m"], values["z"]), rel=1e-6)
    assert 0.05 < similarity[0, 1] < 0.95


def test_batches_are_averaged_before_they_are_divided(tiny: Any, samples: torch.Tensor) -> None:
    net = tiny("Relu")
    parts = batches(samples, size=24)
    similarity = orm(net.program, net.layers, parts)
    products = np.zeros((2, 2))
    for part in parts:
        values = net.program.evaluate(part.feeds, outputs=["m", "z"])
        centred = [values[name].double() - values[name].double().mean(0) for name in ("m", "z")]
        products += [[float((a.T @ b).square().sum()) for b in centred] for a in centred]
    assert len(parts) == 4
    assert similarity[0, 1] == pytest.approx(
        products[0, 1] / np.sqrt(products[0, 0] * products[1, 1]), rel=1e-6
    )


CONVOLUTIONS = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[N, 2, 3, 3] x) => (float[N, 4, 1, 1] y)
<float[4, 2, 1, 1] w = {1.0, 0.5, -1.0, 2.0, 0.25, 1.0, -0.5, 1.0}, float[4, 1] v = {1.0, 2.0, 3.0, 4.0},
 int64[1] first = {0}>
{
    c = Conv(x, w)
    r = Relu(c)
    y = GlobalAveragePool(r)
    t = Transpose<perm = [2, 3, 0, 1]>(r)
    last = MatMul(t, v)
    o = ReduceSum<keepdims = 0>(c)
    zero = Sub(r, r)
    z = Relu(zero)
    one = Unsqueeze(w, first)
}
"""


def layer(name: str, weight: str, shape: tuple[int, ...], *uses: tuple[str, str]) -> Layer:
    return Layer(name, "Conv", weight, shape, 0, tuple(Use(name, "Conv", a, b, 1) for a, b in uses))


def test_maps_count_with_every_position() -> None:
    program = compile_model(ir.from_onnx_text(CONVOLUTIONS))
    x = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    pair = [
        layer("conv", "w", (4, 2, 1, 1), ("x", "c")),
        layer("shared", "w", (4, 2, 1, 1), ("x", "c"), ("x", "r")),
    ]
    similarity = orm(program, pair, [Batch({"x": x}, None, 6)])
    values = {
        name: value.flatten(1) for name, value in program.evaluate({"x": x}, outputs=["c", "r"]).items()
    }
    both = torch.cat([values["c"], values["r"]], dim=1)
    assert similarity[0, 1] == pytest.approx(linear_cka(values["c"], both), rel=1e-6)


def test_samples_may_lie_along_another_axis() -> None:
    program = compile_model(ir.from_onnx_text(CONVOLUTIONS))
    x = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    pair = [layer("conv", "w", (4, 2, 1, 1), ("x", "c")), layer("turned", "v", (4, 1), ("t", "last"))]
    similarity = orm(program, pair, [Batch({"x": x}, None, 5)])
    values = program.evaluate({"x": x}, outputs=["c", "last"])
    turned = values["last"].permute(2, 0, 1, 3).flatten(1)
    assert similarity[0, 1] == pytest.approx(linear_cka(values["c"].flatten(1), turned), rel=1e-6)


def test_what_cannot_be_compared_is_refused_or_marked() -> None:
    program = compile_model(ir.from_onnx_text(CONVOLUTIONS))
    conv = layer("conv", "w", (4, 2, 1, 1), ("x", "c"))
    x = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SamplesError, match="alone it does not tell"):
        orm(program, [conv], [Batch({"x": x[:1]}, None, 1)])
    summed = layer("summed", "v", (4, 1), ("t", "o"))
    with pytest.raises(ModelError, match=r"summed: no axis of its output 'o' counts samples"):
        orm(program, [conv, summed], [Batch({"x": x}, None, 5)])
    broken = orm(program, [conv, conv], [Batch({"x": x.log()}, None, 5)])
    assert np.isnan(broken).all()
    assert np.isnan(ompq_importance(broken)).all()


def test_what_is_the_same_for_all_samples_is_like_nothing() -> None:
    program = compile_model(ir.from_onnx_text(CONVOLUTIONS))
    x = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    conv = layer("conv", "w", (4, 2, 1, 1), ("x", "c"))
    zero, table = layer("zero", "v", (4, 1), ("zero", "z")), layer("table", "v", (4, 1), ("w", "one"))
    similarity = orm(program, [conv, zero, table], [Batch({"x": x}, None, 5)])
    np.testing.assert_allclose(similarity, np.eye(3))
    np.testing.assert_allclose(ompq_importance(similarity), 1)


def test_a_layer_unlike_the_others_is_worth_most() -> None:
    similarity = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]])
    np.testing.assert_allclose(ompq_importance(similarity, beta=2), np.exp([-2.0, -2.2, -0.6]))
    np.testing.assert_allclose(ompq_importance(similarity, beta=0), 1)
