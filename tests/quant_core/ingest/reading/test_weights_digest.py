"""What tells one training from another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from quant_core.ingest import read_model
from tests.networks import network

NET = """<ir_version: 8, opset_import: ["": 18]>
net (float[N,6] x) => (float[N,5] y) {
  h = MatMul(x, v) scale = Constant<value: tensor = float[1] {2.0}>() y = Mul(h, scale) }"""


def digest(path: Path, weight: np.ndarray, **external: str) -> str:
    model = network(NET, {"v": weight})
    if external:
        onnx.save(model, path, save_as_external_data=True, size_threshold=0, **external)
    else:
        onnx.save(model, path)
    return read_model(path).weights


@pytest.fixture
def weight() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)


def test_one_value_changes_it(tmp_path, weight):
    whole = digest(tmp_path / "net.onnx", weight)
    weight[3, 2] = np.nextafter(weight[3, 2], np.float32(9))
    assert digest(tmp_path / "net.onnx", weight) != whole


def test_a_constant_of_a_node_changes_it(tmp_path, weight, monkeypatch):
    whole = digest(tmp_path / "net.onnx", weight)
    monkeypatch.setitem(globals(), "NET", NET.replace("2.0", "2.5"))
    assert digest(tmp_path / "net.onnx", weight) != whole


def test_where_tensors_lie_and_what_is_said_about_them_does_not(tmp_path, weight):
    whole = digest(tmp_path / "net.onnx", weight)
    assert digest(tmp_path / "apart.onnx", weight, location="net.bin") == whole
    model = onnx.load(tmp_path / "net.onnx")
    model.doc_string, model.producer_name = "of Tuesday", "another"
    onnx.save(model, tmp_path / "named.onnx")
    assert read_model(tmp_path / "named.onnx").weights == whole
