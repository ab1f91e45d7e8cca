"""What runs between transpositions that undo each other runs without them; onnxruntime says it is the same."""

import numpy as np
import pytest

from tests.networks import drawn, network
from tests.quant_core.ingest.normalised import kept, ops

CONSTANTS = (
    "int64[1] rows = {1}, int64[2] places = {1, 2}, int64[2] columns = {2, -1}, int64[2] columns_rows = {2, 3}, "
    "float low = {-0.5}, float high = {0.5}, int64[8] pads = {0, 1, 2, 0, 0, 3, 4, 0}, int64[4] two = {1, 0, 2, 5}, "
    "float[3] each = {1, 2, 3}, float[4] scales = {1, 2, 1.5, 1}, int64[4] sizes = {2, 4, 9, 3}"
)
FIRST, LAST = "Transpose<perm=[0,3,1,2]>", "Transpose<perm=[0,2,3,1]>"


def graph(body, outputs="float[n,a,b,c] y"):
    return f"g (float[n,3,5,6] x, float[n,3,5,6] v) => ({outputs}) <{CONSTANTS}> {{ {body} }}"


def both(text):
    draw = np.random.default_rng(1)
    proto = network(text, drawn(draw, {"wide": (5, 6, 3), "wide_two": (2, 5, 6, 2)}))
    feeds = {name: draw.standard_normal((2, 3, 5, 6)).astype(np.float32) for name in "xv"}
    # As written: onnxruntime moves transpositions itself, and wrongly past a Pad of two axes.
    return kept(proto, feeds, as_written=True)


@pytest.mark.parametrize(
    ("between", "left"),
    [
        ("r = Relu(t)", ["Relu"]),
        ("r = Clip(t, low, high)", ["Clip"]),
        ("r = Mul(t, each)", ["Mul"]),
        ("r = Sub(wide, t)", ["Sub"]),
        ("r = Pad(t, pads)", ["Pad"]),
        ("r = Pad(t, two, , columns)", ["Pad"]),
        ("r = ReduceMax(t, places)", ["ReduceMax"]),
        ("q = Sigmoid(t) r = Mul(q, t)", ["Sigmoid", "Mul"]),
        ("r = Softmax(t)", ["Softmax"]),
        ("q = Neg(t) r = Concat<axis=-1>(q, wide_two, t)", ["Neg", "Concat"]),
        ('r = Resize<mode="linear">(t, , scales)', ["Resize"]),
        ('r = Resize<mode="nearest">(t, , , sizes)', ["Resize"]),
    ],
)
def test_what_stands_between_two_transpositions_runs_without_them(between, left):
    model = both(graph(f"s = Abs(x) t = {LAST}(s) {between} u = {FIRST}(r) y = Exp(u)"))
    assert ops(model) == ["Abs", *left, "Exp"]


def test_two_that_undo_each_other_go_where_they_meet():
    model = both(
        graph(
            f"s = Abs(x) t = {LAST}(s) u = {FIRST}(t) y = Exp(u) z = Neg(t)",
            "float[n,a,b,c] y, float[n,d,e,f] z",
        )
    )
    assert sorted(ops(model)) == ["Abs", "Exp", "Neg", "Transpose"]


def test_outputs_keep_their_names_where_what_they_were_transposed_from_takes_their_place():
    body = f"t = {LAST}(x) r = Relu(t) u = {FIRST}(r) y = {FIRST}(r) z = {FIRST}(r) w = Exp(u)"
    model = both(graph(body, "float[n,a,b,c] y, float[n,a,b,c] z, float[n,a,b,c] w"))
    assert [value.name for value in model.graph.outputs] == ["y", "z", "w"]
    assert sorted(ops(model)) == ["Exp", "Relu", "Transpose", "Transpose"]


def test_a_sum_of_two_branches_is_taken_before_they_are_transposed():
    body = f"t = {LAST}(x) u = {LAST}(v) r = Add(t, u) y = {FIRST}(r) z = {LAST}(y)"
    model = both(graph(body, "float[n,a,b,c] z"))
    assert ops(model) == ["Add", "Transpose"]


def test_a_mean_over_the_places_of_a_picture_needs_no_transposition_behind_it():
    model = both(graph(f"t = {LAST}(x) r = Relu(t) y = ReduceMean<keepdims=0>(r, places)", "float[n,c] y"))
    assert ops(model) == ["Relu", "GlobalAveragePool", "Flatten"]


@pytest.mark.parametrize("between", ["Add(t, other)", "Relu(t)"])
@pytest.mark.parametrize(
    ("behind", "left"),
    [
        ("y = ReduceMean<keepdims=0>(u, columns_rows)", []),
        (f"m = Neg(u) w = {LAST}(m) y = Exp(w)", ["Transpose"]),
        (f"m = ReduceMax(u, columns_rows) w = {LAST}(m) y = Exp(w)", ["Transpose"]),
    ],
)
def test_a_transposition_may_lie_behind_some_and_in_front_of_others(between, behind, left):
    body = f"s = Abs(x) t = {LAST}(s) p = Sin(v) other = {LAST}(p) r = {between} u = {FIRST}(r) {behind}"
    model = both(graph(body, "float[n,d] y" if "keepdims" in behind else "float[n,a,b,c] y"))
    assert [name for name in ops(model) if name == "Transpose"] == left


@pytest.mark.parametrize(
    "order",
    ["[0,2,3,1]", "[2,3,1,0]"],
)
def test_orders_that_are_not_their_own_inverse_come_out_right(order):
    back = [order.strip("[]").split(",").index(str(axis)) for axis in range(4)]
    body = f"t = Transpose<perm={order}>(x) p = Pad(t, pads) q = Relu(p) u = Transpose<perm={back}>(q) y = Exp(u)"
    assert ops(both(graph(body))) == ["Pad", "Relu", "Exp"]


def test_who_reads_what_was_transposed_still_does():
    body = (
        f"t = {LAST}(x) r = Relu(t) u = {FIRST}(r) w = {FIRST}(r) y = Exp(u) z = Neg(w) s = CumSum(r, rows)"
    )
    model = both(graph(body, "float[n,a,b,c] y, float[n,a,b,c] z, float[n,d,e,f] s, float[n,d,e,f] r"))
    assert ops(model).count("Transpose") == 1
    assert [value.name for value in model.graph.outputs] == ["y", "z", "s", "r"]


@pytest.mark.parametrize(
    "body",
    [
        f"t = {LAST}(x) y = Relu(t)",
        f"t = {LAST}(x) r = CumSum(t, rows) y = {FIRST}(r)",
        f"t = {LAST}(x) c = Shape(t) e = Expand(low, c) r = Add(t, e) y = {FIRST}(r)",
        f"t = {LAST}(x) r = Relu(t) y = {LAST}(r)",
        f"t = {LAST}(x) r = ReduceMax<keepdims=0>(t, rows) y = Exp(r)",
    ],
)
def test_transpositions_that_nothing_undoes_stay_where_they_are(body):
    rank = "float[n,a,b] y" if "keepdims" in body else "float[n,a,b,c] y"
    before = body.count("Transpose")
    model = both(graph(body, rank))
    assert ops(model).count("Transpose") == before
    assert not any("@turned" in str(value.name) for node in model.graph for value in node.outputs)


def test_padding_with_channels_last_becomes_that_of_the_convolution():
    text = f"g (float[n,5,6,4] x) => (float[n,a,b,c] y) <{CONSTANTS}> "
    text += f"{{ s = Mul(x, low) p = Pad(s, pads) t = {FIRST}(p) y = Conv(t, w) }}"
    weight = np.random.default_rng(1).standard_normal((6, 4, 3, 3)).astype(np.float32)
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 4)).astype(np.float32)
    assert ops(kept(network(text, {"w": weight}), {"x": x}, as_written=True)) == ["Mul", "Transpose", "Conv"]


def test_a_tensor_keeps_no_name_of_one_that_lies_otherwise():
    model = both(graph(f"t = {LAST}(x) r = Relu(t) s = Abs(r) u = {FIRST}(s) y = Exp(u)"))
    names = {value.name for node in model.graph for value in node.outputs}
    assert names.isdisjoint({"t", "r", "s"})
    assert "u" in names
