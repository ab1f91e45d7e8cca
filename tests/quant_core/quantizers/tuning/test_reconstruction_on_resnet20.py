"""Codes that nothing has followed come closer to the float net, on images that no job saw; the bytes stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from scipy.special import log_softmax

from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec

DATA = Path(__file__).parents[4] / "benchmarks" / "data"
MODEL = DATA / "resnet20_cifar10.onnx"
SEEN = 320


@pytest.mark.slow
def test_whole_job(tmp_path):
    with np.load(DATA / "cifar10_calibration.npz") as full:
        np.savez(tmp_path / "samples.npz", input=full["input"][:SEEN])
        unseen = full["input"][SEEN:]

    def outputs(path: Path) -> np.ndarray:
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        return log_softmax(session.run(None, {session.get_inputs()[0].name: unseen})[0], axis=1)

    target = outputs(MODEL)
    divergence, size = {}, {}
    for rounding in ("gptq", "reconstruction"):
        spec = QuantizeSpec.model_validate(
            {"effective_bits": 2, "rounding": rounding, "workers": 1, "follow": False}
        )
        earlier = tmp_path / "gptq" if rounding == "reconstruction" else None
        quantize(MODEL, tmp_path / "samples.npz", spec, tmp_path / rounding, earlier=earlier)
        path = tmp_path / rounding / "model.onnx"
        divergence[rounding] = float((np.exp(target) * (target - outputs(path))).sum(1).mean())
        size[rounding] = path.stat().st_size
    assert size["reconstruction"] == size["gptq"]
    assert divergence["reconstruction"] < divergence["gptq"]
