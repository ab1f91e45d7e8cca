"""What estimators are asked."""

from types import SimpleNamespace

import numpy as np
import pytest

from quant_core.calibration import Samples
from quant_core.scoring.question import asked
from quant_core.spec import AnalyzeSpec, QuantizeSpec


@pytest.mark.parametrize(
    ("spec", "effort", "thrifty"),
    [
        (QuantizeSpec, "balanced", True),
        (QuantizeSpec, "best", True),
        (AnalyzeSpec, "balanced", True),
        (AnalyzeSpec, "best", False),
    ],
)
def test_a_quantization_scores_alike_at_every_effort_above_fast(monkeypatch, spec, effort, thrifty):
    monkeypatch.setattr("quant_core.scoring.question.find_objective", lambda *_: None)
    samples = Samples({"x": np.zeros((8, 2), np.float32)})
    job = SimpleNamespace(
        program=None, layers=(), samples=samples, device="cpu", candidates={}, padding=None, batch_size=4
    )
    with asked(job, samples, {}, spec(effort=effort), lambda *_: None) as question:
        assert question.thrifty == thrifty
        assert question.samples == 8
