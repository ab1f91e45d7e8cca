"""Declared and computed sizes of vectors cost nothing."""

from __future__ import annotations

import time

import onnx
import onnx_ir as ir
import pytest

from quant_core.errors import ModelError
from quant_core.executor import load
from quant_core.ingest import normalise, read_model
from quant_core.ingest.shape_inference import infer_shapes
from tests.networks import network


def model(length: str) -> onnx.ModelProto:
    return network(f"""g (int64[{length}] k, float[2, 3, 4] x) => (float[a, b] y, int64[{length}] s) {{
        s = Add(k, k)
        size = Shape(x)
        n = Gather<axis = 0>(size, zero)
        rest = Constant<value_ints = [-1]>()
        target = Concat<axis = 0>(n, rest)
        y = Reshape(x, target)
    }}""")


def with_zero(length: str) -> onnx.ModelProto:
    made = model(length)
    made.graph.initializer.append(onnx.helper.make_tensor("zero", onnx.TensorProto.INT64, [1], [0]))
    return made


@pytest.mark.parametrize("length", ["2147483648", str(1 << 62)])
def test_a_long_integer_vector(length, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(with_zero(length).SerializeToString())
    start = time.process_time()
    normalise(read_model(path).model)
    # Followed element by element it would take minutes and all memory.
    assert time.process_time() - start < 10


def test_a_vector_that_doubles(tmp_path):
    lines = [f"t{i + 1} = Concat<axis = 0>(t{i}, t{i})" for i in range(40)]
    made = network(f"""g (float[1] t0) => (float[n] t40) {{ {" ".join(lines)} }}""")
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    start = time.process_time()
    normalise(read_model(path).model)
    assert time.process_time() - start < 10


def test_computed_sizes_are_followed():
    made = ir.serde.deserialize_model(with_zero("4"))
    infer_shapes(made)
    assert tuple(made.graph.outputs[0].shape) == (2, 12)


def test_names_that_are_no_text():
    content = with_zero("4").SerializeToString().replace(b"rest", b"\xff\xfes\xff")
    with pytest.raises(ModelError, match="not UTF-8"):
        load(onnx.load_model_from_string(content))


@pytest.mark.parametrize(
    ("opset", "step"), [(21, "v = Relu(x)"), (18, "v = GroupNormalization<num_groups = 1>(x, scale, bias)")]
)
def test_sequences_that_a_loop_carries_stay_sequences(opset, step):
    # As torch's exporter writes an EmbeddingBag: a body whose inputs say nothing of themselves. Below opset 21 shapes
    # are inferred for group normalization before it is raised, too.
    made = network(f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[2, 3] x, int64 n) => (float[a, 3] y) {{
        {step}
        yes = Constant<value = bool {{1}}>()
        none = SequenceEmpty()
        i, all = Loop(n, yes, zero, none) <body = b (int64 k, bool c, i0, s0) => (bool d, i1, s1) {{
            d = Identity(c)  one = CastLike(k, i0)  i1 = Add(i0, one)  s1 = SequenceInsert(s0, v)
        }}>
        y = ConcatFromSequence<axis = 0>(all)
    }}""")
    made.graph.initializer.append(onnx.helper.make_tensor("zero", onnx.TensorProto.INT64, [], [0]))
    if opset < 21:
        for name in ("scale", "bias"):
            made.graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [1], [1.0]))
    again = normalise(ir.from_proto(made))
    onnx.checker.check_model(ir.to_proto(again), full_check=True)
