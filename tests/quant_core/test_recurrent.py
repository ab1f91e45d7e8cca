"""A recurrent classifier reaches the budgets that other networks reach."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from quant_core.analysis import analyze
from quant_core.debugging import debug
from quant_core.pipeline import quantize
from quant_core.spec import AnalyzeSpec, QuantizeSpec
from tests.networks import network

NET = """<ir_version: 8, opset_import: ["" : 17]>
g (int64[n,9] ids) => (float[n,3] y) {
    e = Gather(table, ids)
    x = Transpose<perm=[1,0,2]>(e)
    , last = LSTM<hidden_size=40, direction="bidirectional">(x, w, r, b)
    t = Transpose<perm=[1,0,2]>(last)
    f = Flatten(t)
    y = Gemm(f, head)
}"""
SHAPES = {"table": (60, 24), "w": (2, 160, 24), "r": (2, 160, 40), "b": (2, 320), "head": (80, 3)}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("net"), np.random.default_rng(0)
    proto = network(
        NET,
        {
            name: random.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(shape[-1]))
            for name, shape in SHAPES.items()
        },
    )
    proto.graph.node[2].name = "memory"
    onnx.save(proto, folder / "net.onnx")
    np.savez(folder / "data.npz", ids=random.integers(0, 60, (48, 9)))
    return folder / "net.onnx", folder / "data.npz"


def _run(path, ids):
    return onnxruntime.InferenceSession(path).run(["y"], {"ids": ids})[0]


def _db(reference, found):
    return 10 * np.log10((reference**2).sum() / ((found - reference) ** 2).sum())


@pytest.fixture(scope="module")
def made(paths, tmp_path_factory):
    out = tmp_path_factory.mktemp("job") / "out"
    spec = QuantizeSpec(size=0.25, activation_bits="float", rules=[{"match": "memory.R", "pin": 3}])
    quantize(*paths, spec, out, on_progress=lambda *_: None)
    return out


def test_a_quarter_of_the_size_with_both_weights_in_integers(paths, made):
    report = json.loads((made / "report.json").read_text())
    layers = {layer["name"]: layer for layer in report["layers"]}
    assert (made / "model.onnx").stat().st_size <= 0.25 * paths[0].stat().st_size
    assert {layers[name]["kernel"] for name in ("memory.W", "memory.R")} == {"LSTM"}
    assert layers["memory.R"]["weight_bits"] == 3
    assert layers["memory.W"]["weight_bits"] > 3
    ids = np.load(paths[1])["ids"]
    assert _db(_run(paths[0], ids), _run(made / "model.onnx", ids)) > 15


def test_debugging_tells_the_two_weights_apart(paths, made, tmp_path):
    """R alone in float is what a file with R in float gives."""
    found = {layer.name: layer for layer in debug(paths[0], made / "model.onnx", paths[1], samples=48).layers}
    assert found["memory.R"].own_sqnr_db < found["memory.W"].own_sqnr_db
    ids, proto = np.load(paths[1])["ids"], onnx.load(made / "model.onnx")
    (node,) = (node for node in proto.graph.node if node.op_type == "LSTM")
    (weight,) = (tensor for tensor in onnx.load(paths[0]).graph.initializer if tensor.name == "r")
    weight.name = node.input[2] = "r_in_float"
    proto.graph.initializer.append(weight)
    onnx.save(proto, tmp_path / "float.onnx")
    reference = _run(paths[0], ids)
    gain = _db(reference, _run(tmp_path / "float.onnx", ids)) - _db(reference, _run(made / "model.onnx", ids))
    assert gain > 1
    assert found["memory.R"].float_gain_db == pytest.approx(gain, abs=0.1)


@pytest.mark.parametrize("method", ["gauss_newton", "kfac"])
def test_methods_that_look_into_layers(method, paths, tmp_path):
    analyze(*paths, AnalyzeSpec(sensitivity=method), tmp_path / "out", on_progress=lambda *_: None)
    table = json.loads((tmp_path / "out" / "sensitivity.json").read_text())
    rows = {row["name"]: row["sensitivity"] for row in table["layers"]}
    for name in ("memory.W", "memory.R"):
        values = list(rows[name].values())
        assert all(np.isfinite(values))
        assert rows[name]["3"] > rows[name]["8"] > 0
