"""Padding in front of convolutions and places cut off behind become their own; onnxruntime says so."""

import numpy as np
import pytest

from tests.networks import network
from tests.quant_core.ingest.normalised import kept, ops

PADDED = "g (float[n,4,t] x) => (float[n,6,u] y) <int64[6] pads = {0, 0, 4, 0, 0, 1}> "
PADDED += "{ p = Pad(x, pads) y = Conv<dilations=[2]>(p, w) }"
ALONG_ONE_AXIS = PADDED.replace("[6] pads = {0, 0, 4, 0, 0, 1}", "[2] pads = {4, 1}, int64[1] axis = {-1}")
ALONG_ONE_AXIS = ALONG_ONE_AXIS.replace("pads)", "pads, , axis)")
TWO_READERS = PADDED.replace("(p, w)", "(p, w) z = Conv(p, w)").replace("y) <", "y, float[n,6,s] z) <")
CUT = "g (float[n,4,t] x) => (float[n,6,u] y) <int64[1] a = {0}, int64[1] b = {-4}, int64[1] c = {2}> "
CUT += "{ p = Conv<pads=[4,4], dilations=[2]>(x, w) y = Slice(p, a, b, c) }"
SHAPES = {"w": (6, 4, 3), "v": (6, 4, 3, 3)}


def both(text, shape=(2, 4, 13)):
    proto = network(
        text, {name: np.random.default_rng(1).standard_normal(sizes) for name, sizes in SHAPES.items()}
    )
    return kept(proto, {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)})


def pads(model):
    return [list(node.attributes.get_ints("pads")) for node in model.graph if node.op_type == "Conv"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PADDED, [[4, 1]]),
        (PADDED.replace("dilations=[2]", "dilations=[2], pads=[1,2]"), [[5, 3]]),
        (PADDED.replace("dilations=[2]", 'strides=[2], auto_pad="VALID"'), [[4, 1]]),
        (TWO_READERS, [[4, 1], [4, 1]]),
        (ALONG_ONE_AXIS, [[4, 1]]),
    ],
)
def test_a_pad_of_zeros_becomes_the_convolutions_own(text, expected):
    model = both(text)
    assert pads(model) == expected
    assert set(ops(model)) == {"Conv"}


@pytest.mark.parametrize(
    "text",
    [
        PADDED.replace("{0, 0, 4, 0, 0, 1}", "{0, 0, -1, 0, 0, 1}"),
        PADDED.replace("{0, 0, 4, 0, 0, 1}", "{1, 0, 4, 0, 0, 1}"),
        PADDED.replace("Pad(", 'Pad<mode="edge">('),
        PADDED.replace("0, 1}>", "0, 1}, float one = {1.0}>").replace("pads)", "pads, one)"),
        PADDED.replace("dilations=[2]", 'auto_pad="SAME_UPPER"'),
        PADDED.replace("(p, w)", "(p, w) z = Relu(p)").replace("[n,6,u] y", "[n,6,u] y, float[n,4,s] z"),
        PADDED.replace("[n,6,u] y", "[n,6,u] y, float[n,4,s] p"),
    ],
)
def test_a_pad_that_is_more_than_zeros_for_convolutions_stays(text):
    assert "Pad" in ops(both(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CUT, [4, 0]),
        (CUT.replace("{0}", "{3}").replace("{-4}", "{-1}"), [1, 3]),
        (CUT.replace("{0}", "{1}").replace("{-4}", "{9223372036854775807}"), [3, 4]),
        (CUT.replace("{-4}", "{-1}").replace("dilations=[2]", "strides=[3]"), [4, 1]),
    ],
)
def test_places_that_were_padded_for_and_cut_off_are_not_computed(text, expected):
    model = both(text)
    assert (ops(model), pads(model)) == (["Conv"], [expected])


def test_an_activation_function_behind_the_cut_is_behind_the_convolution():
    model = both(CUT.replace("y = Slice(p, a, b, c)", "s = Slice(p, a, b, c) y = Relu(s)"))
    assert ops(model) == ["Conv", "Relu"]


def test_an_image_is_cut_along_one_axis_of_two():
    text = (
        "g (float[n,4,h,k] x) => (float[n,6,u,s] y) <int64[1] a = {0}, int64[1] b = {-2}, int64[1] c = {3}> "
    )
    text += "{ p = Conv<pads=[1,2,1,2]>(x, v) y = Slice(p, a, b, c) }"
    assert pads(both(text, (2, 4, 7, 8))) == [[1, 2, 1, 0]]


@pytest.mark.parametrize(
    "text",
    [
        CUT.replace("{-4}", "{-5}"),
        CUT.replace("{-4}", "{6}"),
        CUT.replace("{0}", "{-9}"),
        CUT.replace("{2}", "{1}").replace("[n,6,u]", "[n,k,u]"),
        CUT.replace("{-4}", "{-2}").replace("dilations=[2]", "strides=[3]"),
        CUT.replace("c = {2}", "c = {2}, int64[1] d = {2}").replace("b, c)", "b, c, d)"),
        CUT.replace("[n,6,u] y", "[n,6,u] y, float[n,6,s] p"),
    ],
)
def test_other_cuts_stay(text):
    assert "Slice" in ops(both(text))
