"""What a program promises: names, pruning, freeing, replacement, gradients, errors."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper

from quant_core.errors import ModelError, SamplesError, UnsupportedOperatorError
from quant_core.executor import compile_model, load, run, unsupported_operators
from tests.quant_core.executor.graphs import compiled, model

RNG = np.random.default_rng(0)
W1 = RNG.normal(size=(4, 3)).astype(np.float32)
W2 = RNG.normal(size=(4, 4)).astype(np.float32)
CHAIN = model(
    """<ir_version: 9, opset_import: ["" : 18]>
    chain (float[n, 3] x) => (float[n, 4] y) {
        a = Gemm<transB = 1>(x, w1)
        b = Relu(a)
        turned = Transpose(w2)
        c = MatMul(b, turned)
        y = Add(c, b)
    }""",
    w1=W1,
    w2=W2,
)


@pytest.fixture
def chain():
    return compiled(CHAIN)


def test_names(chain) -> None:
    assert chain.inputs == ("x",)
    assert chain.outputs == ("y",)
    assert set(chain.weights) == {"w1", "w2"}
    assert chain.order == ("a", "b", "turned", "c", "y")
    assert chain.downstream("b") == {"c", "y"}
    assert chain.downstream("w2") == {"turned", "c", "y"}
    assert not any(weight.requires_grad for weight in chain.weights.values())


def test_interior_feeds_skip_what_lies_before(chain) -> None:
    x = torch.randn(5, 3)
    whole = chain.evaluate({"x": x}, outputs=["b", "y"])
    seen = []
    part = chain.evaluate({"b": whole["b"]}, replace={"a": lambda t: seen.append(t) or t})
    assert torch.equal(part["y"], whole["y"])
    assert not seen


def test_what_nothing_reads_is_not_looked_at(chain) -> None:
    b = torch.randn(5, 4)
    beside = {"x": torch.ones(5, 3, dtype=torch.int64), "a": torch.ones(5, 4, dtype=torch.int64)}
    seen = []
    found = chain.evaluate({"b": b} | beside, replace={"a": lambda t: seen.append(t) or t})
    assert torch.equal(found["y"], chain.evaluate({"b": b})["y"])
    assert not seen


def test_every_tensor_is_what_evaluate_gives_beside_the_feeds(chain) -> None:
    x, w2 = torch.randn(5, 3), torch.randn(4, 4)
    found = chain.every_tensor({"x": x}, beside=["w1"], weights={"w2": w2})
    assert set(found) == {"x", "w1", *chain.order}
    expected = chain.evaluate({"x": x}, outputs=chain.order, weights={"w2": w2})
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not found["y"].requires_grad


def test_feeding_an_output_returns_it(chain) -> None:
    y = torch.randn(5, 4)
    assert chain.evaluate({"y": y})["y"] is y


def test_replacing_a_tensor_reaches_everything_after_it(chain) -> None:
    x = torch.randn(5, 3)
    found = chain.evaluate(
        {"x": x}, replace={"b": torch.zeros_like, "w2": lambda t: t * 2}, outputs=["b", "turned"]
    )
    assert not found["b"].any()
    assert torch.equal(found["turned"], 2 * torch.from_numpy(W2).t())


def test_gradients_flow_to_weights_feeds_and_replacements(chain) -> None:
    x = torch.randn(5, 3, dtype=torch.float32, requires_grad=True)
    weights = {name: weight.clone().requires_grad_() for name, weight in chain.weights.items()}
    shift = torch.zeros(4, requires_grad=True)
    y = chain.evaluate({"x": x}, weights=weights, replace={"a": lambda t: t + shift})["y"]
    hidden = torch.relu(x @ weights["w1"].t() + shift)
    expected = hidden @ weights["w2"].t() + hidden
    for leaf in (x, shift, *weights.values()):
        (ours,) = torch.autograd.grad(y.sum(), leaf, retain_graph=True)
        (theirs,) = torch.autograd.grad(expected.sum(), leaf, retain_graph=True)
        torch.testing.assert_close(ours, theirs)


# torch's own tables for forward differentiation are still compiled with the deprecated call.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_functional_transforms(chain) -> None:
    x = torch.randn(6, 3)
    batched = torch.func.vmap(lambda row: chain.evaluate({"x": row[None]})["y"][0])(x)
    torch.testing.assert_close(batched, chain(x)[0])
    tangent = torch.randn(6, 3)
    _, forward = torch.func.jvp(lambda t: chain(t)[0], (x,), (tangent,))
    _, pull = torch.func.vjp(lambda t: chain(t)[0], x)
    cotangent = torch.randn_like(forward)
    torch.testing.assert_close((forward * cotangent).sum(), (pull(cotangent)[0] * tangent).sum())


def test_tensors_are_freed_after_their_last_use(chain) -> None:
    alive = []
    gone = []

    def watch(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(weakref.ref(tensor))
        return tensor

    def look(tensor: torch.Tensor) -> torch.Tensor:
        gc.collect()
        gone.append(alive[0]() is None)
        return tensor

    with torch.no_grad():
        chain.evaluate({"x": torch.randn(5, 3)}, replace={"a": watch, "c": look})
    assert gone == [True]


def test_a_deep_chain_holds_two_tensors_at_a_time() -> None:
    lines = [f"t{layer + 1} = Tanh(t{layer})" for layer in range(50)]
    program = compiled(
        model(f"""<ir_version: 9, opset_import: ["" : 18]>
        g (float[n] t0) => (float[n] t50) {{ {" ".join(lines)} }}""")
    )
    alive: list[weakref.ref[torch.Tensor]] = []
    peaks = []

    def watch(tensor: torch.Tensor) -> torch.Tensor:
        made = tensor.clone()
        alive.append(weakref.ref(made))
        peaks.append(sum(held.nbytes for held in (ref() for ref in alive) if held is not None))
        return made

    size = 4000
    names = program.order[:-1]
    with torch.no_grad():
        program.evaluate({"t0": torch.zeros(size // 4)}, replace=dict.fromkeys(names, watch))
    assert len(peaks) == 49
    assert max(peaks) <= 2 * size


def test_large_weights_share_the_memory_of_the_file() -> None:
    array = np.zeros((2, 1 << 22), np.float32)
    proto = ir.serde.deserialize_model(
        model(
            """<ir_version: 9, opset_import: ["" : 18]>
        g (float[2, m] x) => (float[2, m] y) { y = Add(x, w) }""",
            w=array,
        )
    )
    proto.graph.initializers["w"].const_value = ir.Tensor(array)
    program = compile_model(proto)
    array[0, 0] = 7
    assert program.weights["w"][0, 0] == 7


def test_wrong_requests_are_named(chain) -> None:
    with pytest.raises(SamplesError, match="x"):
        chain.evaluate({})
    with pytest.raises(ModelError, match="nothere"):
        chain.evaluate({"x": torch.randn(5, 3)}, outputs=["nothere"])
    with pytest.raises(ModelError, match="'a' is not a float initializer"):
        chain.evaluate({"x": torch.randn(5, 3)}, weights={"a": torch.zeros(1)})
    with pytest.raises(SamplesError, match="takes torch"):
        chain.evaluate({"x": torch.ones(5, 3, dtype=torch.int64)})
    with pytest.raises(ModelError, match="Gemm failed"):
        chain.evaluate({"x": torch.randn(5, 9)})
    with pytest.raises(SamplesError, match="1 inputs but 2"):
        chain(torch.zeros(1), torch.zeros(1))


def test_floats_are_not_cut_to_the_integers_that_an_input_holds() -> None:
    net = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        net (int64[n] rows, bool[n] kept) => (int64[n] y) { z = Cast<to=7>(kept) y = Mul(rows, z) }"""
    )
    rows, kept = np.array([1, 2]), np.array([True, False])
    assert run(net, {"rows": rows, "kept": kept})["y"].tolist() == [1, 0]
    assert run(net, {"rows": rows.astype(np.int32), "kept": kept})["y"].tolist() == [1, 0]
    with pytest.raises(
        SamplesError, match=r"rows: the array has type float64, and the input holds int64.*'int64'"
    ):
        run(net, {"rows": rows + 0.5, "kept": kept})
    with pytest.raises(SamplesError, match=r"kept: .* holds bool"):
        run(net, {"rows": rows, "kept": kept.astype(np.float32)})


def test_all_unsupported_operators_are_named_at_once() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Foo", ["a"], ["b"], name="first", domain="acme"),
        helper.make_node("Foo", ["b"], ["c"], name="second", domain="acme"),
        helper.make_node("RegexFullMatch", ["c"], ["y"], name="third"),
    ]
    value = helper.make_tensor_value_info("x", 1, [2])
    graph = helper.make_graph(nodes, "g", [value], [onnx.ValueInfoProto(name="y")])
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("acme", 3)]
    )
    with pytest.raises(UnsupportedOperatorError) as caught:
        load(proto)
    text = str(caught.value)
    assert "acme::Foo (opset 3) at first, second" in text
    assert "ai.onnx::RegexFullMatch (opset 20) at third" in text
    assert (
        len(unsupported_operators(proto))
        == len(unsupported_operators(ir.serde.deserialize_model(proto)))
        == 2
    )


def test_a_file_laid_out_for_one_processor_is_told_from_others() -> None:
    proto = model(
        """<ir_version: 9, opset_import: ["" : 18]>
    g (float[n, 16, 8, 8] x) => (float[n, 16, 8, 8] y) {
        y = Relu(x)
    }"""
    )
    written = helper.make_node("Conv", ["x", "x"], ["y"], "c", domain="com.microsoft.nchwc")
    proto.graph.node[0].CopyFrom(written)
    proto.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    with pytest.raises(UnsupportedOperatorError, match="nchwc::Conv") as caught:
        load(proto)
    assert "ORT_ENABLE_EXTENDED" in caught.value.remedy


def test_single_values_are_read_at_computed_places() -> None:
    # As loops of torch's exporters do, which count through the bounds of bags of words.
    proto = model(
        """<ir_version: 9, opset_import: ["" : 18]>
    g (float[n] x, int64 i) => (float y, float z) {
        y = Gather(x, i)
        axes = Constant<value_ints: ints = [0]>()
        index = Unsqueeze(i, axes)
        z = GatherND(x, index)
    }"""
    )
    program = compiled(proto)
    y, z = program(torch.tensor([1.0, 2.0, 3.0]), torch.tensor(-1))
    assert (y.shape, z.shape, float(y), float(z)) == ((), (), 3.0, 3.0)


def test_shape_arithmetic_never_touches_the_device() -> None:
    """On the meta device a tensor has no values, so a kernel that had to look at one would fail."""
    proto = model(
        """<ir_version: 9, opset_import: ["" : 18]>
    g (float[n, c, h, w] x) => (float[n, k] y, int64[m] s) {
        s = Shape(x)
        zero = Constant<value_int: int = 0>()
        rows = Gather(s, zero)
        axes = Constant<value_ints: ints = [0]>()
        rows1 = Unsqueeze(rows, axes)
        rest = Constant<value_ints: ints = [-1]>()
        target = Concat<axis = 0>(rows1, rest)
        flat = Reshape(x, target)
        start = Constant<value_ints: ints = [1]>()
        all = Shape(flat)
        columns = Slice(all, start, rest, axes)
        last = Slice(flat, zero_, half, start)
        float_rows = Cast<to = 1>(rows)
        y = Div(last, float_rows)
    }""",
        zero_=np.array([0]),
        half=np.array([5]),
    )
    program = compiled(proto, device="meta")
    y, shape = program(torch.zeros(2, 3, 4, 4, device="meta"))
    assert y.shape == (2, 5)
    assert y.device == shape.device == torch.device("meta")


def test_functions_and_control_flow() -> None:
    text = """<ir_version: 9, opset_import: ["" : 18, "local" : 1]>
    g (float[n] x, bool flag) => (float[n] y) {
        a = local.twice<factor = 3.0>(x)
        y = If (flag) <
            then_branch = g1 () => (float[n] t) { t = Mul(a, w) },
            else_branch = g2 () => (float[n] e) { e = Neg(a) }
        >
    }
    <domain: "local", opset_import: ["" : 18]>
    twice <factor> (z) => (r) {
        c = Constant<value_float: float = @factor>()
        r = Mul(z, c)
    }"""
    proto = model(text, w=np.array([2.0], np.float32))
    program = compiled(proto)
    assert set(program.weights) == {"w"}
    x = torch.tensor([1.0, -2.0])
    weight = torch.tensor([5.0], requires_grad=True)
    y = program.evaluate({"x": x, "flag": torch.tensor(True)}, weights={"w": weight})["y"]
    assert y.tolist() == [15.0, -30.0]
    (slope,) = torch.autograd.grad(y.sum(), weight)
    assert slope.item() == -3.0
    assert program(x, torch.tensor(False))[0].tolist() == [-3.0, 6.0]


def test_empty_and_scalar_tensors() -> None:
    proto = model("""<ir_version: 9, opset_import: ["" : 18]>
    g (float[n, 3] x, float s) => (float[n, 3] y, float[3] z, int64 k) {
        y = Mul(x, s)
        axes = Constant<value_ints: ints = [0]>()
        z = ReduceSum<keepdims = 0>(x, axes)
        k = Size(x)
    }""")
    found = run(proto, {"x": np.zeros((0, 3), np.float32), "s": np.float32(2)})
    assert found["y"].shape == (0, 3)
    assert found["z"].tolist() == [0, 0, 0]
    assert found["k"] == 0
    assert found["k"].dtype == np.int64


def test_broadcasting_by_axis_before_opset_7() -> None:
    proto = model(
        """<ir_version: 3, opset_import: ["" : 6]>
        g (float[2, 3, 3] x) => (float[2, 3, 3] y) { y = Add<axis = 1, broadcast = 1>(x, b) }""",
        b=np.array([1, 2, 3], np.float32),
    )
    found = run(proto, {"x": np.zeros((2, 3, 3), np.float32)})["y"]
    np.testing.assert_array_equal(found[0], np.array([[1, 1, 1], [2, 2, 2], [3, 3, 3]], np.float32))


def test_equal_runs_are_equal() -> None:
    proto = model("""<ir_version: 9, opset_import: ["" : 18]>
    g (float[n] x) => (float[n] y) { r = RandomNormalLike(x)  y = Add(x, r) }""")
    x = np.zeros(8, np.float32)
    first, second = run(proto, {"x": x})["y"], run(proto, {"x": x})["y"]
    assert first.any()
    np.testing.assert_array_equal(first, second)
    other = compile_model(ir.serde.deserialize_model(proto), seed=1)(torch.zeros(8))[0]
    assert not np.array_equal(first, other.numpy())


def test_quantization_is_straight_through() -> None:
    proto = model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[n] x) => (float[n] y) { q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }""",
        s=np.array(0.5, np.float32),
        z=np.array(0, ml_dtypes.int4),
    )
    x = torch.tensor([0.3, 1.1, 100.0], requires_grad=True)
    y = compiled(proto)(x)[0]
    assert y.tolist() == [0.5, 1.0, 3.5]
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert slope.tolist() == [1.0, 1.0, 0.0]


def test_a_file_runs_as_its_model_does(tmp_path: Path) -> None:
    proto = model(
        """<ir_version: 9, opset_import: ["" : 18]>
        g (float[n] x) => (float[n] y) { y = Add(x, b) }""",
        b=np.array([1.0], np.float32),
    )
    onnx.save(proto, tmp_path / "net.onnx")
    feeds = {"x": np.array([1.0, 2.0], np.float32)}
    for path in (tmp_path / "net.onnx", str(tmp_path / "net.onnx")):
        np.testing.assert_array_equal(run(path, feeds)["y"], run(proto, feeds)["y"])
    with pytest.raises(ModelError, match=r"missing\.onnx"):
        run(tmp_path / "missing.onnx", feeds)
