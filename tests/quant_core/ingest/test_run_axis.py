"""An axis in front of every input and output, put there and taken away again."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from quant_core.ingest import normalise
from quant_core.ingest.run_axis import add_run_axis, counts_runs, remove_run_axis

STREAMING = """
<ir_version: 8, opset_import: ["" : {opset}]>
g (float[n, 4] x, float[2, n, 3] h, float rate) => (float[n, 4] y, float[2, n, 3] k, float[n, 4] z)
{{
    one = Constant <value = float {{2.0}}> ()
    s = Mul (x, rate)
    y = Relu (s)
    k = Mul (h, one)
    fast = Greater (rate, one)
    z = If (fast) <
        then_branch = a () => (float[n, 4] p) {{ p = Neg (x) }},
        else_branch = b () => (float[n, 4] q) {{ q = Abs (y) }}
    >
}}
"""


def model(opset=17):
    return ir.serde.deserialize_model(onnx.parser.parse_model(STREAMING.format(opset=opset)))


def run(graph, feeds):
    proto = ir.serde.serialize_model(graph)
    onnx.checker.check_model(proto, full_check=True)
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, feeds
    )


def feeds(rate=0.5):
    generator = np.random.default_rng(0)
    return {
        "x": generator.standard_normal((5, 4)).astype(np.float32),
        "h": generator.standard_normal((2, 5, 3)).astype(np.float32),
        "rate": np.array(rate, np.float32),
    }


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize("rate", [0.5, 3.0])
def test_a_run_is_a_sample_and_a_run_again(opset, rate):
    given = feeds(rate)
    wanted = run(model(opset), given)
    graph = model(opset)
    add_run_axis(graph)
    assert [(v.name, len(v.shape)) for v in graph.graph.inputs] == [("x", 3), ("h", 4), ("rate", 1)]
    found = run(graph, {name: value[None] for name, value in given.items()})
    assert [value.shape for value in found] == [(1, *value.shape) for value in wanted]
    for expected, value in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(value[0], expected)
    graph = normalise(graph)
    remove_run_axis(graph)
    assert [v.name for v in graph.graph.outputs] == ["y", "k", "z"]
    for expected, value in zip(wanted, run(graph, given), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_nothing_is_left_of_the_axis():
    graph, plain = model(), normalise(model())
    add_run_axis(graph)
    graph = normalise(graph)
    remove_run_axis(graph)
    assert sorted(node.op_type for node in graph.graph) == sorted(node.op_type for node in plain.graph)
    assert len(graph.graph.initializers) == len(plain.graph.initializers)
    assert [list(v.shape) for v in graph.graph.inputs] == [list(v.shape) for v in plain.graph.inputs]


def test_the_axis_goes_where_its_nodes_are_no_longer_found():
    graph = ir.serde.deserialize_model(
        onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1, n, 4] x) => (float[1, n, 4] y) { y = Relu (x) }
        """)
    )
    remove_run_axis(graph)
    x = feeds()["x"] - 1
    (found,) = run(graph, {"x": x})
    np.testing.assert_array_equal(found, np.maximum(x, 0))


def test_ranks_tell_runs_from_samples():
    runs = {"x": 3, "h": 4, "rate": 1}
    assert counts_runs(model(), runs)
    assert counts_runs(model(), runs | {"labels": 1})
    assert not counts_runs(model(), {"x": 2, "h": 3, "rate": 0})
    assert not counts_runs(model(), runs | {"h": 3})
    assert not counts_runs(model(), {"x": 3, "h": 4})
    assert not counts_runs(model(), {})
