import numpy as np
import pytest
import torch

from quant_core.calibration import Samples
from quant_core.executor import compile_model
from quant_core.quantizers.bias_correction.input_means import find_bias
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.input_moments import input_moments
from quant_core.quantizers.rounding.gptq import gptq
from tests.quant_core.quantizers.drawn_layers import build

NETS = {
    "Conv": (
        "g (float[n,4,8,8] x) => (float[n,6,6,6] y) { y = Conv<kernel_shape=[3,3]>(x, w, b) }",
        (6, 4, 3, 3),
        (6,),
    ),
    "grouped": (
        "g (float[n,4,8,8] x) => (float[n,6,8,8] y) { y = Conv<kernel_shape=[1,1], group=2>(x, w, b) }",
        (6, 2, 1, 1),
        (6,),
    ),
    "Gemm": ("g (float[n,9] x) => (float[n,5] y) { y = Gemm(x, w, b) }", (9, 5), (1, 5)),
    "MatMul": ("g (float[n,3,9] x) => (float[n,3,5] y) { a = MatMul(x, w) y = Add(b, a) }", (9, 5), (5,)),
}


@pytest.mark.parametrize("name", NETS)
def test_mean_output_is_kept(name):
    text, weight_shape, bias_shape = NETS[name]
    model, (layer,) = build(text, w=weight_shape, b=bias_shape)
    program = compile_model(model)
    inputs = model.graph.inputs[0].shape
    shape = [200, *(int(size) for size in list(inputs)[1:])]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32) + 1
    samples = Samples(inputs={"x": x})
    moments = input_moments(FloatNetwork(program, model, [layer], 200), [layer], samples, seed=0)[layer.name]
    weight = model.graph.initializers["w"].const_value.numpy()
    rounded = gptq(layer, weight, moments, [2], find_bias(model, layer))[2]
    assert rounded.bias is not None
    assert rounded.bias.name == "b"
    assert rounded.bias.values.shape == bias_shape
    stand_ins = {key: torch.from_numpy(value) for key, value in rounded.stand_ins("w").items()}
    assert set(stand_ins) == {"w", "b"}

    def mean(weights):
        with torch.no_grad():
            y = program.evaluate({"x": torch.from_numpy(x)}, weights=weights)["y"]
        y = y.movedim(1, -1) if layer.op == "Conv" else y
        return y.reshape(-1, y.shape[-1]).mean(0)

    uncorrected = (mean({"w": stand_ins["w"]}) - mean({})).abs().max()
    corrected = (mean(stand_ins) - mean({})).abs().max()
    assert corrected < uncorrected / 5


@pytest.mark.parametrize(
    "text",
    [
        "g (float[n,9] x) => (float[n,5] y) { a = Gemm(x, w, b) y = Mul(a, b) }",  # also read elsewhere
        "g (float[n,9] x) => (float[n,5] y) { a = MatMul(x, w) c = Relu(a) y = Add(c, b) }",  # not added to the product
        "g (float[n,9] x) => (float[n,5] y) { y = Gemm<beta=2.0>(x, w, b) }",
        "g (float[n,9] x, float[n,5] z) => (float[n,5] y) { a = MatMul(x, w) y = Add(a, z) }",
        "g (float[n,9] x) => (float[n,5] y, float[n,5] a) { a = MatMul(x, w) y = Add(a, b) }",
    ],
)
def test_other_constants_are_left_alone(text):
    model, layers = build(text, w=(9, 5), **({"b": (5,)} if " b)" in text or "(b" in text else {}))
    assert find_bias(model, layers[0]) is None
