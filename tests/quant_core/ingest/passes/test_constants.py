"""What nodes make of constants alone becomes a weight, unless that would make the file larger."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from quant_core.ingest import find_layers, normalise
from tests.quant_core.ingest.normalised import N, check_same, normal, ops


def test_weight_arithmetic_becomes_one_weight(build, run, floats):
    # Weight normalization: W = g * V / |V|.
    feeds = {"x": floats(2, 64)}
    nodes = [
        N("ReduceL2", ["v", "axes"], ["norm"], keepdims=1),
        N("Div", ["v", "norm"], ["unit"]),
        N("Mul", ["unit", "g"], ["w"]),
        N("Transpose", ["w"], ["wt"], perm=[1, 0]),
        N("MatMul", ["x", "wt"], ["y"]),
    ]
    before = build(nodes, feeds, {"v": floats(48, 64), "g": floats(48, 1), "axes": np.array([1])})
    after = normal(before)
    assert ops(after) == ["MatMul"]
    assert [layer.shape for layer in find_layers(after)] == [(64, 48)]
    check_same(run, before, after, feeds)


STANDARDIZED = [
    N("ReduceMean", ["w", "axes"], ["mean"]),
    N("Sub", ["w", "mean"], ["centred"]),
    N("Mul", ["centred", "centred"], ["squares"]),
    N("ReduceMean", ["squares", "axes"], ["variance"]),
    N("Sqrt", ["variance"], ["deviation"]),
    N("Div", ["centred", "deviation"], ["weight"]),
]
IN_TRAINING = [
    N("Reshape", ["w", "as_channels"], ["rows"]),
    N("BatchNormalization", ["rows", "one", "none", "none", "one"], ["n", "m", "v"], training_mode=1),
    N("Reshape", ["n", "as_weight"], ["weight"]),
]
SPECTRAL = [
    N("MatMul", ["w", "v"], ["wv"]),
    N("Mul", ["wv", "u"], ["along"]),
    N("ReduceSum", ["along"], ["largest"], keepdims=0),
    N("Div", ["w", "largest"], ["weight"]),
]
LOW_RANK = [N("MatMul", ["a", "b"], ["ab"]), N("Add", ["w", "ab"], ["weight"])]
CUT = [N("Split", ["w"], ["q", "k"], axis=0, num_outputs=2), N("Concat", ["k", "q"], ["weight"], axis=0)]

FAKE_QUANTIZED = [
    N("Div", ["w", "step"], ["steps"]),
    N("Round", ["steps"], ["rounded"]),
    N("Clip", ["rounded", "low"], ["codes"]),
    N("Mul", ["codes", "step"], ["weight"]),
]


@pytest.mark.parametrize("made", [STANDARDIZED, IN_TRAINING, SPECTRAL, LOW_RANK, CUT, FAKE_QUANTIZED])
def test_what_several_nodes_make_of_a_weight_becomes_one_weight(made, build, run, floats):
    feeds = {"x": floats(2, 48)}
    constants = {"w": floats(48, 48), "axes": np.array([1]), "v": floats(48), "u": floats(48)}
    constants |= {
        "step": np.float32(0.25),
        "low": np.float32(-4),
        "a": floats(48, 4),
        "b": floats(4, 48),
        "one": np.ones(48, np.float32),
        "none": 0 * floats(48),
    }
    constants |= {"as_channels": np.array([1, 48, 48]), "as_weight": np.array([48, 48])}
    read = {name for node in made for name in node.input}
    before = build(
        [*made, N("MatMul", ["x", "weight"], ["y"])],
        feeds,
        {name: array for name, array in constants.items() if name in read},
    )
    after = normal(before)
    assert ops(after) == ["MatMul"]
    assert list(after.graph.initializers) == ["weight"]
    check_same(run, before, after, feeds)


def test_cuts_that_are_read_apart_become_weights_and_shared_ones_stay(build, run, floats):
    """The projections of torch's attention between two sequences: one cut for the query, one for key and value."""
    feeds = {"x": floats(2, 40)}
    nodes = [
        N("Split", ["w"], ["q", "kv"], axis=1, num_outputs=2),
        N("MatMul", ["x", "q"], ["a"], "first"),
        N("MatMul", ["a", "kv"], ["b"], "second"),
    ]
    alone = build([*nodes, N("Identity", ["b"], ["y"])], feeds, {"w": floats(40, 80)})
    after = normal(alone)
    assert [layer.shape for layer in find_layers(after)] == [(40, 40), (40, 40)]
    check_same(run, alone, after, feeds)
    read_whole = build([*nodes, N("MatMul", ["b", "w"], ["y"])], feeds, {"w": floats(40, 80)})
    assert ops(normal(read_whole)).count("Split") == 1


def test_constants_that_would_grow_stay_expressions(build, run, floats):
    feeds = {"x": floats(1, 2000)}
    nodes = [
        N("ConstantOfShape", ["huge"], ["zeros"]),
        N("Shape", ["zeros"], ["shape"]),
        N("Expand", ["row", "tall"], ["table"]),
        N("ReduceSum", ["table", "axis"], ["sum"], keepdims=0),
        N("Add", ["x", "sum"], ["a"]),
        N("Cast", ["shape"], ["f"], to=TensorProto.FLOAT),
        N("ReduceMean", ["f"], ["mean"], keepdims=0),
        N("Add", ["a", "mean"], ["y"]),
    ]
    constants = {
        "huge": np.array([1 << 12, 1 << 10]),
        "row": floats(1, 2000),
        "tall": np.array([64, 2000]),
        "axis": np.array([0]),
    }
    before = build(nodes, feeds, constants)
    after = normal(before)
    assert ir.to_proto(after).ByteSize() < before.ByteSize() + 9000
    check_same(run, before, after, feeds)


def test_a_mask_of_truth_values_stays_one(build, run, floats):
    """Made a mask of numbers beforehand, it would take four times the room; a table for a table takes no more."""
    feeds = {"x": floats(1, 48, 48)}
    nodes = [
        N("Cast", ["mask"], ["numbers"], to=TensorProto.FLOAT),
        N("Mul", ["numbers", "low"], ["added"]),
        N("Add", ["x", "added"], ["y"]),
    ]
    constants = {"mask": np.triu(np.ones((48, 48), np.bool_)), "low": np.float32(-100)}
    before = build(nodes, feeds, constants)
    after = normal(before)
    assert ir.to_proto(after).ByteSize() < before.ByteSize() + 200
    check_same(run, before, after, feeds)
    turned = [
        N("Not", ["mask"], ["other"]),
        N("Cast", ["other"], ["numbers"], to=TensorProto.FLOAT),
        *nodes[1:],
    ]
    assert ops(normal(build(turned, feeds, constants))) == ["Cast", "Mul", "Add"]


@pytest.mark.parametrize("stops", [(16, 32, 48, 64), (16, 32, 48, 64, 56)])
def test_gates_in_another_order_become_one_weight(stops, build, run, floats):
    """As exporters write recurrent weights: cut up and put together again; but not where that repeats a part."""
    feeds = {"x": floats(7, 2, 80)}
    starts = [stop - 16 for stop in stops]
    nodes = [
        N("Slice", ["w", f"{start}", f"{stop}", "zero"], [f"part{k}"])
        for k, (start, stop) in enumerate(zip(starts, stops, strict=True))
    ]
    parts = [f"part{k}" for k in (0, 3, 1, 2)]
    nodes += [
        N("Concat", parts, ["gates"], axis=0),
        N("Unsqueeze", ["gates", "zero"], ["stacked"]),
        N("LSTM", ["x", "stacked", "r"], ["h"], "memory", hidden_size=16),
    ]
    if len(stops) > 4:
        nodes += [
            N("Transpose", ["part4"], ["turned"], perm=[1, 0]),
            N("MatMul", ["x", "turned"], ["again"], "again"),
            N("Add", ["h", "again"], ["y"]),
        ]
    else:
        nodes.append(N("Identity", ["h"], ["y"]))
    weights = {"w": floats(64, 80), "r": floats(1, 64, 16)}
    ends = {f"{place}": np.array([place]) for place in (*starts, *stops)}
    before = build(nodes, feeds, weights | ends | {"zero": np.array([0])})
    after = normal(before)
    cut = [node for node in after.graph if node.op_type == "Slice"]
    layers = {layer.name: layer.shape for layer in find_layers(after)}
    found = {"memory.W": (1, 64, 80)} if len(stops) == 4 else {"w": (64, 80)}
    assert layers == found | {"memory.R": (1, 64, 16)}
    assert bool(cut) == (len(stops) > 4)
    rows = sum(
        value.const_value.nbytes for name, value in after.graph.initializers.items() if "/rows" in name
    )
    assert ir.to_proto(after).ByteSize() < before.ByteSize() + rows + 1000
    check_same(run, before, after, feeds)


def test_shape_arithmetic_is_folded(build, run, floats):
    feeds = {"x": floats(2, 3, 4)}
    nodes = [
        N("Shape", ["x"], ["shape"]),
        N("Gather", ["shape", "two"], ["last"], axis=0),
        N("Concat", ["minus", "last"], ["target"], axis=0),
        N("Reshape", ["x", "target"], ["y"]),
    ]
    before = build(nodes, feeds, {"two": np.array([2]), "minus": np.array([-1])})
    after = normal(before)
    assert ops(after) == ["Reshape"]
    check_same(run, before, after, feeds)


@pytest.mark.parametrize("picked", [[1], [0, 1, 2, 3], [0, 1, 2, 3, 2]], ids=["one", "each", "one twice"])
def test_matrices_picked_from_a_stack_become_weights(picked, build, run, floats):
    """Unless that repeats one: as models keep the weights of all experts or blocks in one tensor."""
    tensor, nodes = "x", []
    for k, index in enumerate(picked):
        nodes += [
            N("Gather", ["stack", f"i{index}"], [f"w{k}"]),
            N("MatMul", [tensor, f"w{k}"], [f"y{k}"], f"m{k}"),
        ]
        tensor = f"y{k}"
    indices = {f"i{index}": np.array(index) for index in picked}
    feeds = {"x": floats(2, 40)}
    model = build(nodes, feeds, {"stack": floats(4, 40, 40) / 6, **indices}, (tensor,))
    after = normalise(ir.from_proto(model))
    np.testing.assert_allclose(run(after, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)
    folded = len(picked) <= 4
    assert (after.graph.num_nodes() == len(picked)) == folded
    assert (len(find_layers(after)) == len(picked)) == folded


def test_lookup_in_a_large_table_stays_a_lookup(build, run, floats):
    feeds = {"x": floats(2, 40, 64)}
    nodes = [N("Gather", ["table", "rows"], ["h"], "positions"), N("Add", ["x", "h"], ["y"])]
    before = build(nodes, feeds, {"table": floats(100, 64), "rows": np.arange(40)})
    after = normal(before)
    assert [layer.name for layer in find_layers(after)] == ["positions"]
    check_same(run, before, after, feeds)
