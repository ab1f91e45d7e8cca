"""A product, its inputs and their moments, and its error over all of them."""

import numpy as np

from quant_core.calibration import Samples
from quant_core.executor import compile_model
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.input_moments import input_moments
from tests.quant_core.quantizers.drawn_layers import build

TEXT = "g (float[n,24] x) => (float[n,{0}] y) {{ y = Gemm(x, w, b) }}"


def setting(outputs, offset=0.0):
    model, (layer,) = build(TEXT.format(outputs), w=(24, outputs), b=(outputs,))
    rng = np.random.default_rng(1)
    x = rng.standard_normal((600, 24)) @ rng.standard_normal((24, 24)) + offset * rng.standard_normal(24)
    x = x.astype(np.float32)
    network = FloatNetwork(compile_model(model), model, [layer], 600)
    moments = input_moments(network, [layer], Samples(inputs={"x": x}), seed=0)[layer.name]
    return model, layer, model.graph.initializers["w"].const_value.numpy(), x, moments


def errors(x, weight, rounded):
    """Squared error of each output over all samples."""
    return np.square(x @ (rounded.dequantize() - weight)).sum(0)
