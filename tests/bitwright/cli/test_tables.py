"""What is printed of a result."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from app.api.description.report_example import REPORT
from bitwright.cli.tables import print_summary
from quant_core.spec import Report


def _said(narrow_bits: int | None = None, **latency: float) -> str:
    report = Report.model_validate(REPORT)
    timed = report.latency_ms.model_copy(update=latency)
    layers = tuple(layer.model_copy(update={"narrow_bits": narrow_bits}) for layer in report.layers)
    out = io.StringIO()
    print_summary(
        report.model_copy(update={"latency_ms": timed, "layers": layers}), Console(file=out, width=120)
    )
    return out.getvalue()


@pytest.mark.parametrize(("float_", "disturbed"), [(2.0, False), (2.3, True), (1.7, True)])
def test_a_speed_that_the_times_contradict_is_explained(float_: float, disturbed: bool) -> None:
    said = _said(float_=float_, quantized=1.0, speedup=2.0)
    assert "2.00x the speed" in said
    assert ("median of pairs" in said) is disturbed


def test_layers_are_counted_in_words() -> None:
    assert "Layers by bits: 1 at 8 bits\n" in _said()
    assert "Layers by bits: 1 at 8 and 4 bits\n" in _said(narrow_bits=4)
