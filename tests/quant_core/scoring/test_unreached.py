"""Weights that no sample reaches keep the bits that the budget leaves a weight."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec

N = helper.make_node
INFO = helper.make_tensor_value_info


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A branch that is taken where an input is above 1,000, beside one that is taken elsewhere."""
    random = np.random.default_rng(0)

    def weight(name):
        values = (random.standard_normal((40, 40)) / np.sqrt(40)).astype(np.float32)
        return numpy_helper.from_array(values, name)

    branches = {
        f"{name}_branch": helper.make_graph(
            [N("MatMul", ["h", name], [f"of_{name}"])],
            name,
            [],
            [INFO(f"of_{name}", TensorProto.FLOAT, None)],
            [weight(name)],
        )
        for name in ("then", "else")
    }
    nodes = [
        N("MatMul", ["x", "first"], ["h"], "front"),
        N("ReduceMax", ["x"], ["largest"], keepdims=0),
        N("Greater", ["largest", "limit"], ["is_large"]),
        N("If", ["is_large"], ["chosen"], **branches),
        N("MatMul", ["chosen", "last"], ["y"], "back"),
    ]
    stored = [weight("first"), weight("last"), numpy_helper.from_array(np.float32(1000), "limit")]
    graph = helper.make_graph(nodes, "net", [INFO("x", 1, ["n", 40])], [INFO("y", 1, ["n", 40])], stored)
    folder = tmp_path_factory.mktemp("net")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / "net.onnx")
    np.savez(folder / "data.npz", x=random.standard_normal((64, 40)).astype(np.float32))
    return folder / "net.onnx", folder / "data.npz"


TIMES = {
    "model": "net.onnx", "target": "ort-cpu", "threads": 1, "batch": 1, "runs": 9, "activation_bits": 8,
    "float_rest": 0, "integer_rest": 0, "float_total": 9, "integer_total": 4,
    "layers": [
        {"name": name, "form": "dynamic", "float_ms": 2, "float_spread": 0, "integer_ms": 1, "integer_spread": 0}
        for name in ("front", "then", "else", "back")
    ],
}  # fmt: skip
OTHERS = [{"match": "front", "pin": 8}, {"match": "back", "exclude": True}]


@pytest.mark.parametrize(
    ("request_", "fewest", "warning"),
    [
        ({"size": 0.25}, 5, "were not cut below"),
        ({"effective_bits": 8}, 8, "were not cut below"),
        ({"bops": 0.15}, 2, "may be the fewest"),
        ({"latency": 6, "latency_table": TIMES}, 2, "may be the fewest"),
        ({"size": 0.25, "rules": [{"match": "then", "pin": 3}]}, 3, None),
        ({"effective_bits": 12, "rules": OTHERS}, 3, "were not cut below"),
        ({"effective_bits": 11.2, "rules": OTHERS}, 2, "may be the fewest"),
        ({"size": 0.39, "rules": OTHERS}, 2, "were not cut below"),
    ],
    ids=[
        "size",
        "bits for all",
        "bops",
        "latency",
        "pin",
        "others pinned",
        "hardly in reach",
        "bytes hardly in reach",
    ],
)
def test_a_branch_that_no_sample_takes(request_, fewest, warning, paths, tmp_path):
    quantize(*paths, QuantizeSpec.model_validate({"effort": "fast", **request_}), tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    bits = {layer["name"]: layer["weight_bits"] for layer in report["layers"]}
    assert bits["then"] >= fewest
    told = [text for text in report["warnings"] if "no answer that counts depends on then " in text]
    assert [warning in text for text in told] == [True] * (warning is not None)


def test_weights_that_few_bits_hold_are_reached_though_rounding_them_changes_nothing(tmp_path):
    random = np.random.default_rng(1)
    signs = np.sign(random.standard_normal((40, 40))) * random.uniform(0.1, 0.2, 40)
    full = random.standard_normal((80, 40)) / 9
    stored = [
        numpy_helper.from_array(values.astype(np.float32), name)
        for name, values in (("signs", signs), ("full", full))
    ]
    nodes = [
        N("MatMul", ["x", "signs"], ["h"], "binary"),
        N("Sign", ["h"], ["s"]),
        N("Concat", ["x", "s"], ["both"], axis=1),
        N("MatMul", ["both", "full"], ["y"], "last"),
    ]
    graph = helper.make_graph(nodes, "net", [INFO("x", 1, ["n", 40])], [INFO("y", 1, ["n", 40])], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=random.standard_normal((32, 40)).astype(np.float32))
    spec = QuantizeSpec.model_validate({"effort": "fast", "effective_bits": 4})
    quantize(tmp_path / "net.onnx", tmp_path / "data.npz", spec, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert not any("no answer that counts" in text for text in report["warnings"])
    assert {layer["name"]: layer["weight_bits"] for layer in report["layers"]} == {"binary": 2, "last": 5}
