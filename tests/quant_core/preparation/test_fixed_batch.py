"""Models exported for one sample a run: run in batches where that is safe, with onnxruntime as the judge."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from benchmarks.architectures import ARCHITECTURES
from benchmarks.architectures import build as build_net
from quant_core.artifacts import MODEL
from quant_core.calibration import Samples
from quant_core.executor import compile_beside, compile_model
from quant_core.ingest import find_layers, normalise, read_model
from quant_core.pipeline import quantize
from quant_core.preparation import prepare
from quant_core.preparation.batching import free_samples
from quant_core.sensitivity import find_sample_axes
from quant_core.spec import QuantizeSpec

GENERATOR = np.random.default_rng(0)
SPEC = QuantizeSpec.model_validate({"size": "400kB", "bits": [4, 8], "device": "cpu"})


def floats(*shape):
    return (GENERATOR.standard_normal(shape) / 4).astype(np.float32)


def ints(*numbers):
    return np.array(numbers, np.int64)


def build(nodes, shape, weights, outputs=("y",), opset=18):
    """A model whose input x has the given shape, which begins with 1."""
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    for info, found in zip(model.graph.output, inferred.graph.output, strict=True):
        info.type.CopyFrom(found.type)
    return model


def node(op, inputs, output, **attributes):
    outputs = output.split() if output else []
    return helper.make_node(op, inputs.split(" "), outputs, f"{op}_{outputs[-1]}", **attributes)


def flattened():
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Reshape", "r s", "f"),
        node("MatMul", "f m", "p"),
        node("Add", "p b", "y"),
    ]
    weights = {"w": floats(8, 3, 3, 3), "s": ints(1, -1), "m": floats(8 * 36, 5), "b": floats(1, 5)}
    return build(nodes, [1, 3, 6, 6], weights)


def attention():
    """A block with heads, a class token joined in front, and a residual."""
    nodes = [node("Concat", "token x", "t", axis=1), node("Add", "t position", "h")]
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            node("MatMul", f"h w{name}", f"{name}1"),
            node("Reshape", f"{name}1 heads", f"{name}2"),
            node("Transpose", f"{name}2", f"{name}3", perm=perm),
        ]
    nodes += [
        node("MatMul", "q3 k3", "scores"),
        node("Softmax", "scores", "share", axis=-1),
        node("MatMul", "share v3", "mixed"),
        node("Transpose", "mixed", "back", perm=[0, 2, 1, 3]),
        node("Reshape", "back joined", "o"),
        node("Add", "o h", "res"),
        node("LayerNormalization", "res g g", "n"),
        node("Gather", "n zero", "first", axis=1),
        node("Gemm", "first wo", "y", transB=1),
    ]
    weights = {
        "token": floats(1, 1, 32),
        "position": floats(1, 16, 32),
        "g": floats(32),
        "wo": floats(10, 32),
    }
    weights |= {f"w{name}": floats(32, 32) for name in "qkv"}
    weights |= {"heads": ints(1, 16, 4, 8), "joined": ints(1, 16, 32), "zero": np.int64(0)}
    return build(nodes, [1, 15, 32], weights)


def windows():
    """Windows folded into the batch, as in Swin, and taken apart again."""
    nodes = [
        node("Reshape", "x cut", "a"),
        node("Transpose", "a", "b", perm=[0, 1, 3, 2, 4, 5]),
        node("Reshape", "b fold", "c"),
        node("MatMul", "c w", "d"),
        node("Softmax", "d", "e", axis=1),
        node("Reshape", "e apart", "f"),
        node("Add", "f bias", "f2"),
        node("Transpose", "f2", "g", perm=[0, 1, 3, 2, 4, 5]),
        node("Reshape", "g whole", "y"),
    ]
    weights = {"cut": ints(1, 2, 4, 2, 4, 6), "fold": ints(4, 16, 6), "w": floats(6, 6)}
    weights |= {"apart": ints(1, 2, 2, 4, 4, 6), "whole": ints(1, 8, 8, 6), "bias": floats(1, 2, 2, 4, 4, 6)}
    return build(nodes, [1, 8, 8, 6], weights)


def recurrent():
    """Samples along the second axis, and a first state stored for one sample."""
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("LSTM", "t w r   h c", "a", hidden_size=7),
        node("Squeeze", "a one", "s"),
        node("MatMul", "s m", "p"),
        node("Transpose", "p", "y", perm=[1, 0, 2]),
    ]
    weights = {"w": floats(1, 28, 4), "r": floats(1, 28, 7), "h": floats(1, 1, 7), "c": floats(1, 1, 7)}
    return build(nodes, [1, 9, 4], weights | {"one": ints(1), "m": floats(7, 3)})


def upsampled():
    nodes = [
        node("Conv", "x w", "a", strides=[2, 2]),
        node("Resize", "a   sizes", "b", mode="nearest"),
        node("Expand", "b shape", "e"),
        node("Conv", "e v", "y"),
    ]
    weights = {
        "w": floats(4, 3, 2, 2),
        "sizes": ints(1, 4, 8, 8),
        "shape": ints(1, 4, 8, 8),
        "v": floats(2, 4, 1, 1),
    }
    return build(nodes, [1, 3, 8, 8], weights)


def steps_first():
    """Rows of all steps and samples folded together, steps outermost, for a linear layer; and only a last state."""
    nodes = [
        node("Slice", "x from to", "whole"),
        node("Transpose", "whole", "t", perm=[1, 0, 2]),
        node("Reshape", "t rows", "r"),
        node("Gemm", "r m b", "p"),
        node("Relu", "p", "p2"),
        node("Reshape", "p2 apart", "a"),
        helper.make_node("GRU", ["a", "w", "u", "", "", "h"], ["", "last"], "gru", hidden_size=7),
        node("Squeeze", "last one", "y"),
    ]
    nodes[-1:] = [
        helper.make_node("GRU", ["a", "w", "u", "", "", "h"], ["", "other"], "gru2", hidden_size=7),
        node("Add", "last other", "both"),
        node("Squeeze", "both one", "y"),
    ]
    weights = {"from": ints(0, 1), "to": ints(1, 9), "rows": ints(8, 4), "m": floats(4, 6), "b": floats(6)}
    weights |= {"apart": ints(8, 1, 6), "w": floats(1, 21, 6), "u": floats(1, 21, 7), "h": floats(1, 1, 7)}
    return build(nodes, [1, 9, 4], weights | {"one": ints(0)})


def reduced():
    nodes = [
        node("MatMul", "x w", "a"),
        node("ReduceMean", "a axes", "mean", keepdims=1),
        node("Sub", "a mean", "d"),
        node("Add", "d a", "y"),
    ]
    return build(nodes, [1, 6], {"w": floats(6, 4), "axes": ints(0)})


def multiplied():
    """Rows that meet each other in a product."""
    nodes = [
        node("MatMul", "x w", "a"),
        node("Transpose", "a", "b", perm=[1, 0]),
        node("MatMul", "a b", "c"),
        node("Add", "a c", "y"),
    ]
    return build(nodes, [1, 6], {"w": floats(6, 4)})


def spread():
    """A constant with many rows, each added to the one sample."""
    return build(
        [node("MatMul", "x w", "a"), node("Add", "a table", "y")],
        [1, 6],
        {"w": floats(6, 4), "table": floats(3, 4)},
    )


def counted():
    """A size that the batch takes part in."""
    nodes = [
        node("MatMul", "x w", "a"),
        node("NonZero", "a", "i"),
        node("Cast", "i", "f", to=1),
        node("ReduceSum", "f", "s"),
        node("Add", "a s", "y"),
    ]
    return build(nodes, [1, 6], {"w": floats(6, 4)})


def second_axis(steps):
    """An output whose samples lie along its second axis."""
    nodes = [node("Transpose", "x", "t", perm=[1, 0, 2]), node("MatMul", "t w", "y")]
    return build(nodes, [1, steps, 4], {"w": floats(4, 12)})


def save(model, folder, count=10):
    path, data = folder / "float.onnx", folder / "samples.npz"
    onnx.save(model, path)
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    rows = np.random.default_rng(1).standard_normal((count, *shape[1:])).astype(np.float32)
    np.savez(data, x=rows)
    return path, data, rows


def onnxruntime_alone(path, rows):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])


@pytest.mark.parametrize("make", [flattened, attention, windows, recurrent, upsampled, steps_first])
def test_batches_give_what_onnxruntime_gives_one_by_one(make, tmp_path):
    path, data, rows = save(make(), tmp_path)
    job = prepare(path, data, SPEC)
    assert job.samples.batch is None
    assert job.batch_size > 1
    assert "in batches of up to" in job.notes[0]
    given = job.program.evaluate({"x": torch.from_numpy(rows)})["y"].numpy()
    np.testing.assert_allclose(given, onnxruntime_alone(path, rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [flattened, attention, windows, recurrent, upsampled, steps_first])
def test_the_graph_and_its_weights_stay_as_they_were(make, tmp_path):
    path, data, _ = save(make(), tmp_path)
    job = prepare(path, data, SPEC)
    assert [value.shape[0] for value in job.model.graph.inputs] == [1]
    made = {output.name for node in job.model.graph for output in node.outputs}
    assert made <= set(job.program.order)
    assert {layer.weight for layer in job.layers} <= set(job.program.weights)


def test_weights_are_not_copied(tmp_path):
    path, _, _ = save(flattened(), tmp_path)
    model = normalise(read_model(path).model)
    program = compile_model(model)
    beside = compile_beside(model.clone(), program)
    assert set(beside.weights) == set(program.weights)
    for name, weight in program.weights.items():
        assert beside.weights[name].data_ptr() == weight.data_ptr()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (reduced, "ReduceMean 'ReduceMean_mean': it reduces the batch"),
        (multiplied, "it multiplies samples with each other"),
        (spread, "it spreads other values over the batch"),
        (counted, "it is not known to treat samples one by one"),
    ],
)
def test_others_run_sample_by_sample_and_say_why(make, reason, tmp_path):
    path, data, rows = save(make(), tmp_path)
    job = prepare(path, data, SPEC)
    assert (job.samples.batch, job.batch_size) == (1, 1)
    assert len(job.notes) == 1
    assert "sample by sample" in job.notes[0]
    assert reason in job.notes[0]
    given = job.program.evaluate({"x": torch.from_numpy(rows[:1])})["y"].numpy()
    np.testing.assert_allclose(given, onnxruntime_alone(path, rows[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [8, 10])
def test_samples_may_lie_along_the_second_axis(steps, tmp_path):
    """As many steps as samples are no matter: which axis grows with the batch is found by running it."""
    path, data, rows = save(second_axis(steps), tmp_path)
    job = prepare(path, data, SPEC)
    assert job.samples.batch is None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    alone = [session.run(None, {"x": row[None]})[0] for row in rows]
    feeds = {"x": torch.from_numpy(rows)}
    given = job.program.evaluate(feeds)
    np.testing.assert_allclose(given["y"].numpy(), np.concatenate(alone, axis=1), rtol=1e-4, atol=1e-5)
    assert find_sample_axes(job.program, feeds, given) == {"y": 1}


def test_what_rules_overlook_the_comparison_finds(tmp_path, monkeypatch):
    # Pretend that NonZero were harmless.
    monkeypatch.setattr("quant_core.ingest.batch.follow._RULES", _Careless())
    path, data, _ = save(reduced(), tmp_path)
    job = prepare(path, data, SPEC)
    assert job.samples.batch == 1
    assert "from what each sample gives alone" in job.notes[0]


class _Careless(dict):
    def __contains__(self, op):
        return True

    def __getitem__(self, op):
        return lambda node, given, shapes: 0


@pytest.mark.parametrize("make", [flattened, reduced])
def test_files_keep_the_batch_and_the_report_says_how_it_ran(make, tmp_path):
    path, data, _ = save(make(), tmp_path, count=16)
    report = quantize(path, data, SPEC, tmp_path / "a")
    quantize(path, data, SPEC, tmp_path / "b")
    assert (tmp_path / "a" / MODEL).read_bytes() == (tmp_path / "b" / MODEL).read_bytes()
    exported = onnx.load(tmp_path / "a" / MODEL)
    for info in (exported.graph.input[0], exported.graph.output[0]):
        assert info.type.tensor_type.shape.dim[0].dim_value == 1
    assert sum("the graph fixes the batch at 1" in warning for warning in report.warnings) == 1


def test_resnet20_for_one_image(tmp_path, request):
    folder = request.config.rootpath / "benchmarks" / "data"
    model = onnx.load(folder / "resnet20_cifar10.onnx")
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "float.onnx")
    dynamic = prepare(folder / "resnet20_cifar10.onnx", folder / "cifar10_calibration.npz", SPEC)
    fixed = prepare(tmp_path / "float.onnx", folder / "cifar10_calibration.npz", SPEC)
    assert fixed.samples.batch is None
    assert fixed.batch_size == dynamic.batch_size
    assert fixed.layers == dynamic.layers
    feeds = {"input": torch.from_numpy(fixed.samples.inputs["input"][:16])}
    last = dynamic.program.outputs[0]
    assert torch.equal(fixed.program.evaluate(feeds)[last], dynamic.program.evaluate(feeds)[last])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in {"resnet", "swin"} else ())
        for name in ARCHITECTURES
    ],
)
def test_what_torch_exports_for_one_sample_is_freed(name, tmp_path):
    """Class tokens that are expanded, windows, heads, first states: shapes are constants throughout."""
    net, example = build_net(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(net, (example[:1],), tmp_path / "m.onnx", dynamo=False, opset_version=17)
    model = normalise(read_model(tmp_path / "m.onnx").model)
    (value,) = model.graph.inputs
    generator = torch.Generator().manual_seed(1)
    words = not example.is_floating_point()
    shape = (3, *example.shape[1:])
    rows = (
        torch.randint(0, 64, shape, generator=generator) if words else torch.randn(shape, generator=generator)
    )
    samples = Samples({value.name: rows.numpy()}, batch=1)
    batching = free_samples(model, compile_model(model), find_layers(model), samples, 8)
    assert batching.samples.batch is None, batching.notes
    with torch.no_grad():
        (found,) = batching.program(rows)
        wanted = torch.cat([net(row[None]) for row in rows])
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", ["qdq", "nbits", "dynamic"])
def test_quantized_parts_in_a_batch(form, tmp_path):
    """Grids that are stored serve every sample alike; a range taken at run time is that of the whole batch."""
    nodes = [node("MatMul", "x w", "a"), node("Relu", "a", "b"), node("MatMul", "b v", "y")]
    onnx.save(build(nodes, [1, 6, 32], {"w": floats(32, 32), "v": floats(32, 4)}), tmp_path / "float.onnx")
    path = tmp_path / "m.onnx"
    if form == "dynamic":
        quantize_dynamic(tmp_path / "float.onnx", path, nodes_to_quantize=["MatMul_a"])
    elif form == "nbits":
        quantizer = MatMulNBitsQuantizer(
            onnx.load(tmp_path / "float.onnx"), block_size=32, nodes_to_exclude=["MatMul_y"]
        )
        quantizer.process()
        onnx.save(quantizer.model.model, path)
    else:
        codes = np.random.default_rng(0).integers(-127, 128, (32, 32)).astype(np.int8)
        nodes[0] = node("MatMul", "x d", "a")
        nodes.insert(0, node("DequantizeLinear", "q s", "d"))
        onnx.save(build(nodes, [1, 6, 32], {"q": codes, "s": np.float32(0.01), "v": floats(32, 4)}), path)
    np.savez(tmp_path / "s.npz", x=floats(8, 6, 32))
    job = prepare(path, tmp_path / "s.npz", SPEC.model_copy(update={"quantized_parts": "keep"}))
    assert (job.samples.batch is None) == (form != "dynamic")
    assert ("range of the whole batch" in job.notes[-1]) == (form == "dynamic")
