"""Which tensors live at which node, against what a reader of the graph would write down by hand."""

import onnx
import onnx_ir as ir
import pytest

from quant_core.ingest import find_layers, normalise
from quant_core.ingest.live_tensors import activation_owners, live_tensors


def parsed(text):
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}'))


RESIDUAL = """net (float[n, 4] x) => (float[n, 4] y)
<float[4, 4] a = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1},
 float[4, 4] b = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2}>
{
  [first] h = MatMul(x, a)
  [clip] r = Relu(h)
  [second] s = MatMul(r, b)
  [sum] t = Add(s, r)
  [end] y = Sigmoid(t)
}"""


def test_a_residual_branch_is_held_until_it_is_added():
    steps = dict(live_tensors(parsed(RESIDUAL).graph))
    assert {node: set(alive) for node, alive in steps.items()} == {
        "first": {"x", "h"},
        "clip": {"h"},  # r is written over h
        "second": {"h", "s"},
        "sum": {"h", "s", "t"},
        "end": {"t", "y"},
    }


def test_a_constant_that_is_read_whole_is_none():
    values = ", ".join(str(number / 7) for number in range(1024))
    model = normalise(
        parsed(f"""net (float[n, 32, 32] x) => (float[n, 32, 32] y) <float[32, 32] t = {{{values}}}>
        {{ [only] y = Add(x, t) }}""")
    )
    assert [layer.weight for layer in find_layers(model)] == ["t"]
    assert {node: set(alive) for node, alive in live_tensors(model.graph)} == {
        "t": {"x"},
        "only": {"x", "y"},
    }


def test_an_output_lives_to_the_end_and_is_not_written_over():
    graph = parsed("""net (float[n, 4] x) => (float[n, 4] h, float[n, 4] y)
    { [one] h = Sigmoid(x) [two] r = Relu(h) [three] v = Identity(r) [four] y = Sigmoid(v) }""").graph
    assert {node: set(alive) for node, alive in live_tensors(graph)} == {
        "one": {"x", "h"},
        "two": {"h", "r"},
        "three": {"h", "r"},
        "four": {"h", "r", "y"},
    }


def test_what_a_branch_captures_stays_alive():
    graph = parsed("""net (float[n, 4] x, bool c) => (float[n, 4] y) {
      [one] h = Sigmoid(x)
      [two] k = Sigmoid(x)
      [branch] y = If(c) <then_branch = t () => (float[n, 4] p) { p = Relu(h) },
                          else_branch = e () => (float[n, 4] q) { q = Relu(k) }>
    }""").graph
    assert set(dict(live_tensors(graph))["branch"]) == {"c", "h", "k", "y"}


def test_a_tensor_has_the_activation_bits_of_its_first_reader():
    model = normalise(parsed(RESIDUAL))
    first, second = (layer.name for layer in find_layers(model))
    owners = activation_owners(model.graph, find_layers(model))
    made = {str(value.name): str(node.op_type) for node in model.graph for value in node.outputs}
    told = {made.get(name, name): owner for name, owner in owners.items() if name not in {"a", "b"}}
    assert told["x"] == first
    assert told["Relu"] == second
    assert told["Add"] == told["Sigmoid"] == second  # no layer comes after: those of the layer before


@pytest.mark.parametrize("op", ["Reshape", "Flatten", "Unsqueeze"])
def test_views_take_no_memory(op):
    operands = {"Reshape": "x, s", "Flatten": "x", "Unsqueeze": "x, s"}[op]
    graph = parsed(f"""net (float[2, 3] x) => (float[N] y) <int64[1] s = {{0}}>
    {{ [view] v = {op}({operands}) [end] y = Sigmoid(v) }}""").graph
    steps = dict(live_tensors(graph))
    assert (set(steps["view"]), set(steps["end"])) == ({"x"}, {"x", "y"})
