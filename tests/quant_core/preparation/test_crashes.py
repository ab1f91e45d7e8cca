"""A file that onnxruntime does not live through is told from one it refuses, in a process of its own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from quant_core.artifacts import MODEL
from quant_core.pipeline import quantize
from quant_core.preparation.crashes import crashes_onnxruntime
from quant_core.spec import QuantizeSpec
from tests.quant_core.ingest.normalised import run_model

KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.fixture
def half(tmp_path):
    """A product in float16 behind a Transpose, which ends onnxruntime 1.31, and the same in float32."""
    weight = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float16)
    models = {}
    for name, kind in (("half", "float16"), ("single", "float")):
        model = parser.parse_model(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            g ({kind}[n, 64, 6] x) => ({kind}[n, 6, 32] y) {{
                t = Transpose<perm = [0, 2, 1]>(x)
                y = MatMul(t, w)
            }}"""
        )
        stored = weight if name == "half" else weight.astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(stored, "w"))
        onnx.save(model, tmp_path / f"{name}.onnx")
        models[name] = tmp_path / f"{name}.onnx"
    return models


def test_a_file_that_loads_or_is_refused_crashes_nothing(half, tmp_path):
    assert not crashes_onnxruntime(half["single"])
    (tmp_path / "text.onnx").write_text("no model")
    assert not crashes_onnxruntime(tmp_path / "text.onnx")


def test_a_process_that_is_ended_is_seen(half, tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text(KILLED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert crashes_onnxruntime(half["single"])


def test_a_job_outlives_such_a_file(half, tmp_path):
    x = np.random.default_rng(1).standard_normal((24, 64, 6)).astype(np.float16)
    np.savez(tmp_path / "x.npz", x=x)
    spec = QuantizeSpec(size=1.0, bits=[8], effort="fast", device="cpu")
    crashes = crashes_onnxruntime(half["half"])
    report = quantize(half["half"], tmp_path / "x.npz", spec, tmp_path / "out")
    assert any("crashes when it loads this model in float16" in note for note in report.warnings) == crashes
    expected = run_model(onnx.load(half["single"]), {"x": x.astype(np.float32)})[0]
    found = run_model(onnx.load(tmp_path / "out" / MODEL), {"x": x})[0]
    assert found.dtype == np.float16
    assert np.square(found - expected).mean() < 1e-3 * np.square(expected).mean()
