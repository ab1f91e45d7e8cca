"""What large tensors take more in a batch."""

import numpy as np
import onnx_ir as ir
import pytest

from quant_core.export import place
from quant_core.export.kernels.far_memory import FAR_CODE, FAR_FLOAT, NEAR_BYTES, SAMPLES, far_time
from quant_core.export.kernels.placed_run import PlacedRun
from quant_core.ingest import find_layers, normalise, with_float_activations
from tests.networks import drawn, network

CHANNELS = 16
NEAR, CODES_NEAR = NEAR_BYTES // (4 * SAMPLES), NEAR_BYTES // SAMPLES
"""The largest tensor of a sample that stays near in float, and as codes."""


def far(body, size, floats=()):
    plane = f"float[1,{CHANNELS},8,8]"
    text = f"g ({plane} x) => ({plane} y) {{ {body} }}"
    shapes = dict.fromkeys("uvw", (CHANNELS, CHANNELS, 1, 1))
    proto = network(text, drawn(np.random.default_rng(0), shapes))
    model = normalise(ir.from_proto(proto))
    layers = find_layers(model)
    layers = with_float_activations(layers, [x.name for x in layers if x.weight in floats])
    placement = place(model, layers, {layer.name: 8 for layer in layers}, 8)
    names = ["x", *(value.name for node in model.graph for value in node.outputs)]
    return far_time(PlacedRun(model, layers, placement, dict.fromkeys(names, size)))


CHAIN = "a = Conv(x, u) b = Conv(a, v) y = Conv(b, w)"


@pytest.mark.parametrize(("size", "each"), [(NEAR, 0), (NEAR + 1, FAR_FLOAT), (CODES_NEAR + 1, FAR_FLOAT)])
def test_float_numbers_beyond_the_caches_take_more(size, each):
    laid_out = 2 * 2  # read and written, at both ends
    assert far(CHAIN, size, floats={"u", "v", "w"}) == (6 + laid_out) * each * size


@pytest.mark.parametrize(
    ("size", "number", "code"),
    [(NEAR, 0, 0), (NEAR + 1, FAR_FLOAT, 0), (CODES_NEAR + 1, FAR_FLOAT, FAR_CODE)],
)
def test_codes_are_four_times_as_near(size, number, code):
    assert far(CHAIN, size) == (6 * code + 2 * (number + code)) * size


def test_what_a_convolution_computes_before_it_writes_moves_nothing():
    size, floats = NEAR + 1, {"u", "v"}
    plain = far("a = Conv(x, u) y = Conv(a, v)", size, floats)
    assert far("a = Conv(x, u) b = Relu(a) y = Conv(b, v)", size, floats) == plain > 0
    assert far("a = Conv(x, u) b = Exp(a) y = Conv(b, v)", size, floats) > plain
