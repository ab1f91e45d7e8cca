"""Constants that no layer reads, stored packed: onnxruntime folds them, whatever the target."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.debugging import debug
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec
from tests.networks import network
from tests.quant_core.export.networks import optimized_operators

N = helper.make_node
INFO = helper.make_tensor_value_info
SAMPLES = 48


def _net():
    """A table of positions, a product, and a loop that holds one weight and reads another of the graph around it."""
    random = np.random.default_rng(0)
    shapes = {"positions": (1, 32, 40), "first": (40, 40), "inner": (40, 40), "outer": (40, 40)}
    stored = {
        name: numpy_helper.from_array(
            (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32), name
        )
        for name, shape in shapes.items()
    }
    body = helper.make_graph(
        [
            N("MatMul", ["state", "inner"], ["a"], "in"),
            N("MatMul", ["a", "outer"], ["b"], "out"),
            N("Tanh", ["b"], ["next"], "bound"),
            N("Identity", ["go"], ["goes"], "still"),
        ],
        "body",
        [INFO("i", TensorProto.INT64, []), INFO("go", TensorProto.BOOL, []), INFO("state", 1, None)],
        [INFO("goes", TensorProto.BOOL, []), INFO("next", 1, None)],
        [stored.pop("inner")],
    )
    nodes = [
        N("Add", ["x", "positions"], ["sum"], "shift"),
        N("MatMul", ["sum", "first"], ["h"], "product"),
        N("Loop", ["turns", "", "h"], ["y"], "loop", body=body),
    ]
    stored["turns"] = numpy_helper.from_array(np.array(2), "turns")
    inputs, outputs = [INFO("x", 1, ["n", 32, 40])], [INFO("y", 1, ["n", 32, 40])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, list(stored.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    onnx.save(_net(), folder / "net.onnx")
    rows = np.random.default_rng(1).standard_normal((SAMPLES, 32, 40)).astype(np.float32)
    np.savez(folder / "data.npz", x=rows)
    return folder / "net.onnx", folder / "data.npz"


@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
def test_packed_constants_fold_at_load(target, paths, tmp_path):
    quantize(*paths, QuantizeSpec(size=0.3, target=target, effort="fast"), tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    layers = {layer["name"]: layer for layer in report["layers"]}
    assert layers.keys() == {"positions", "inner", "outer", "product"}
    for name in ("positions", "inner", "outer"):
        assert (layers[name]["form"], layers[name]["kernel"]) == ("weight_only", "folded at load")
        assert layers[name]["own_sqnr_db"] > 5
    assert (tmp_path / "out" / "model.onnx").stat().st_size <= 0.3 * paths[0].stat().st_size
    assert optimized_operators(tmp_path / "out" / "model.onnx") == ["Add", "DynamicQuantizeMatMul", "Loop"]
    if target == "ort-cpu":
        found = debug(paths[0], tmp_path / "out", paths[1])
        assert {layer.name for layer in found.layers} == layers.keys()


def test_they_stay_as_they_are_in_files_for_gpus(paths, tmp_path):
    quantize(*paths, QuantizeSpec(size=0.95, target="ort-cuda", effort="fast"), tmp_path / "out")
    stored = {tensor.name for tensor in onnx.load(tmp_path / "out" / "model.onnx").graph.initializer}
    assert {"positions", "inner", "outer"} <= stored
    assert not [name for name in stored if name.endswith("/rows")]


@pytest.mark.parametrize(
    ("nodes", "output", "form"),
    [
        ("sum = Add(x, rows)", ", int64[64] order", "weight_only"),
        (
            """c = Greater(big, small)
            k = If (c) <then_branch = t () => (int64[64] a) { a = Abs(order) },
                else_branch = e () => (int64[64] b) { b = Neg(order) }>
            moved = Gather<axis=1>(x, k) sum = Add(moved, rows)""",
            "",
            "weight_only",
        ),
        ("some = Gather(w, i) both = Add(rows, some) sum = Add(x, both)", "", "gather"),
    ],
    ids=["an output", "a body", "beside other rows"],
)
def test_row_numbers_and_tables_that_others_read_too(nodes, output, form, monkeypatch, tmp_path):
    """Of a table that the model itself reads whole."""
    monkeypatch.setattr("quant_core.export.targets.ort_cpu._SMALL_TABLE", 0)
    random = np.random.default_rng(0)
    floats = {name: random.standard_normal(shape) for name, shape in [("w", (64, 32)), ("v", (32, 32))]}
    stored = {name: array.astype(np.float32) for name, array in floats.items()}
    stored |= {"order": np.arange(64), "small": np.float32(-50)}
    model = network(
        f"""net (float[n,64,32] x, int64[n,64] i) => (float[n,64,32] y{output}) {{
            rows = Gather(w, order)
            big = ReduceMax<keepdims=0>(x)
            {nodes}
            y = MatMul(sum, v)
        }}""",
        stored,
    )
    onnx.save(model, tmp_path / "net.onnx")
    x = random.standard_normal((12, 64, 32)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, i=random.integers(0, 64, (12, 64)))
    spec = QuantizeSpec.model_validate({"effective_bits": 8, "effort": "fast", "rounding": "nearest"})
    report = quantize(tmp_path / "net.onnx", tmp_path / "data.npz", spec, tmp_path / "out")
    assert [layer.form for layer in report.layers] == [form, "dynamic"]
    assert (report.layers[-1].sqnr_db or 0) > 30
