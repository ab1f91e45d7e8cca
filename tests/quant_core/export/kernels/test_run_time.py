"""Estimated times: what they are made of."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from quant_core.export import place
from quant_core.export.kernels.placed_run import PlacedRun
from quant_core.export.kernels.run_time import estimated_time
from quant_core.export.kernels.times import BORDER, PASS, START, float_time, integer_time
from quant_core.ingest import find_layers, normalise
from quant_core.spec import FLOAT_BITS
from tests.networks import drawn, network

SIDE, CHANNELS = 8, 16
PLANE = CHANNELS * SIDE**2
SWISH = "c = HardSwish(a)"
SPELLED = "g = HardSigmoid<alpha=0.166666667,beta=0.5>(a) c = Mul(a, g)"


def placed(body, floats=()):
    text = f"g (float[1,{CHANNELS},{SIDE},{SIDE}] x) => (float[1,{CHANNELS},{SIDE},{SIDE}] y) {{ {body} }}"
    weights = drawn(np.random.default_rng(0), dict.fromkeys("uvw", (CHANNELS, CHANNELS, 1, 1)))
    proto = network(text, {**weights, "k": np.arange(CHANNELS, dtype=np.float32).reshape(-1, 1, 1)})
    model = normalise(ir.from_proto(proto))
    sizes = {"macs": PLANE * CHANNELS, "input_elements": PLANE, "output_elements": PLANE}
    layers = tuple(
        replace(layer, **sizes, activation_bits=FLOAT_BITS if layer.weight in floats else None)
        for layer in find_layers(model)
    )
    return model, layers, place(model, layers, {layer.name: 8 for layer in layers}, 8)


def estimate(body, floats=()):
    model, layers, placement = placed(body, floats)
    names = ["x", *(value.name for node in model.graph for value in node.outputs)]
    return estimated_time(PlacedRun(model, layers, placement, dict.fromkeys(names, PLANE)))


def border(count=1):
    return count * (START + BORDER * PLANE)


CHAIN = "a = Conv(x, u) b = Conv(a, v) y = Conv(b, w)"


def test_integer_kernels_take_their_time_and_two_borders():
    _, layers, _ = placed(CHAIN)
    assert estimate(CHAIN) == 3 * integer_time(layers[0]) + border(2)


def test_a_float_convolution_between_takes_borders_and_layouts_as_well():
    _, layers, _ = placed(CHAIN)
    more = estimate(CHAIN, floats={"v"}) - estimate(CHAIN)
    layouts = 2 * (START + PASS * PLANE)
    assert more == float_time(layers[0]) - integer_time(layers[0]) + border(2) + layouts


def test_float_convolutions_hand_each_other_what_they_lay_out():
    _, layers, _ = placed(CHAIN)
    assert estimate(CHAIN, floats={"u", "v", "w"}) == 3 * float_time(layers[0]) + 2 * (START + PASS * PLANE)


def test_hard_swish_is_free_behind_a_float_convolution_that_nothing_else_reads():
    both = {"u", "v", "w"}
    plain = estimate("a = Conv(x, u) y = Conv(a, v)", both)
    for swish in (SWISH, SPELLED):
        assert estimate(f"a = Conv(x, u) {swish} y = Conv(c, v)", both) == plain
        assert (
            estimate(f"a = Conv(x, u) {swish} d = Conv(a, w) e = Conv(c, v) y = Add(d, e)", both)
            > plain + PASS * PLANE
        )
        between = estimate(f"a = Conv(x, u) {swish} y = Conv(c, v)") - estimate(
            "a = Conv(x, u) y = Conv(a, v)"
        )
        assert between > border(2)


def test_what_falls_back_with_a_layer_counts():
    """A Split and a Concat run on codes so long as the layers around them do."""
    shuffle = "p, q = Split<axis=1, num_outputs=2>(a) m = Concat<axis=1>(q, p)"
    moved = f"a = Conv(x, u) {shuffle} b = Conv(m, v) y = Conv(b, w)"
    integer, mixed = estimate(moved), estimate(moved, floats={"u", "v"})
    kernels = estimate(CHAIN, floats={"u", "v"}) - estimate(CHAIN)
    assert mixed - integer > kernels


def test_factors_of_channels_take_longer_between_integer_kernels_than_others():
    spread = estimate("a = Conv(x, u) s = Sin(a) m = Mul(s, k) y = Conv(m, v)")
    alike = estimate("a = Conv(x, u) s = Sin(a) m = Mul(s, s) y = Conv(m, v)")
    assert spread > alike + 100 * SIDE**2


def test_a_float_pool_in_front_of_an_integer_kernel_takes_a_pass_and_its_guard():
    pooled = "a = Conv(x, u) p = MaxPool<kernel_shape=[1,1]>(a) y = Conv(p, v)"
    more = estimate(pooled, floats={"u"}) - estimate("a = Conv(x, u) y = Conv(a, v)", floats={"u"})
    assert PASS * PLANE < more < 3 * PASS * PLANE


def test_what_moves_nothing_is_free():
    plain = "a = Conv(x, u) s = Sin(a) y = Conv(s, v)"
    held = "a = Conv(x, u) s = Sin(a) r = Shape(x) t = Reshape(s, r) y = Conv(t, v)"
    assert estimate(held) - estimate(plain) < 2 * START
