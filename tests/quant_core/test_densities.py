"""Eigenvalue densities beside a quantization, also one that takes over an earlier job's sensitivities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from quant_core.artifacts import ARTIFACTS, SPECTRUM_HTML, SPECTRUM_JSON
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec
from quant_core.spec.spectrum import SpectrumTable
from tests.networks import drawn, network

SPEC = QuantizeSpec.model_validate({"size": 2000, "bits": [4, 8], "rounding": "nearest", "spectrum": True})


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, rng = tmp_path_factory.mktemp("densities"), np.random.default_rng(0)
    model = network(
        "net (float[n, 6] x) => (float[n, 3] y) { a = MatMul(x, w1) h = Tanh(a) y = MatMul(h, w2) }",
        drawn(rng, {"w1": (6, 8), "w2": (8, 3)}),
    )
    onnx.save(model, folder / "net.onnx")
    np.savez(folder / "x.npz", x=rng.standard_normal((24, 6)).astype(np.float32))
    return folder / "net.onnx", folder / "x.npz"


def test_they_are_written_and_in_the_report_only_where_they_were_asked_for(
    given: tuple[Path, Path], tmp_path: Path
) -> None:
    first, again, without = (tmp_path / name for name in ("first", "again", "without"))
    report = quantize(*given, SPEC, first)
    names = {path.name for path in first.iterdir()}
    assert names == {*ARTIFACTS, SPECTRUM_JSON, SPECTRUM_HTML}
    table = SpectrumTable.model_validate_json((first / SPECTRUM_JSON).read_text())
    assert [entry.name for entry in table.spectra] == ["whole net", *(layer.name for layer in report.layers)]
    assert table.loss == report.loss.split(",")[0].split(" ")[0]
    for entry in table.spectra:
        for values, weights in zip(entry.values, entry.weights, strict=True):
            assert sum(weights) == pytest.approx(1, abs=1e-4)
            assert entry.largest is not None
            assert max(values) <= entry.largest * (1 + 1e-6)
    assert "Eigenvalues of the Hessian" in (first / "report.html").read_text(encoding="utf-8")

    quantize(*given, SPEC, again, earlier=first)
    assert (again / SPECTRUM_JSON).read_bytes() == (first / SPECTRUM_JSON).read_bytes()
    quantize(*given, SPEC.model_copy(update={"spectrum": False}), without)
    assert not (without / SPECTRUM_JSON).exists()
    assert "Eigenvalues of the Hessian" not in (without / "report.html").read_text(encoding="utf-8")
