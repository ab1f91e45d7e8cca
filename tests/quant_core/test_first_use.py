"""What a first user meets: budgets out of reach say why, and files that are not worth it say so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime import InferenceSession
from onnxruntime.quantization import QuantType, quantize_dynamic

from quant_core.errors import InfeasibleBudgetError, NonFiniteError
from quant_core.pipeline import quantize, validate
from quant_core.spec import QuantizeSpec, Report
from tests.networks import network

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'
CLASSIFIER = "g (float[n,6,8] x) => (float[n,1,6,16] y, float[n,3] z)"
EINSUM = f"""{HEADER}{CLASSIFIER} {{
    h = Einsum<equation="...tc,khc->...kth">(x, w)
    y = Einsum<equation="nktj,jj->nktj">(h, r)
    s = ReduceMean<axes=[1,2], keepdims=0>(y)
    z = Gemm(s, head)
}}"""
CHAIN = f"{HEADER}g (float[n,4] x) => (float[n,4] y) {{ a = MatMul(x, w) b = Tanh(a) y = MatMul(b, r) }}"
FACTORS = f"""{HEADER}g (int64[n] u, int64[n] v) => (float[n,16] y) {{
    a = Gather(p, u) b = Gather(q, v) c = Gather(bias, u) d = Mul(a, b) y = Add(d, c)
}}"""
CONVOLUTIONS = f"""{HEADER}g (float[n,8,8,8] x) => (float[n,16,8,8] y) {{
    a = Conv<pads=[1,1,1,1]>(x, w) b = Elu(a) c = Conv<pads=[1,1,1,1]>(b, v) d = Sigmoid(c) e = Mul(c, d)
    f = Conv<group=16, pads=[1,1,1,1]>(e, u) h = Elu(f) y = Conv(h, t)
}}"""
MASKED = f"""{HEADER}g (float[n,4] x, float[n,4] m) => (float[n,4] y) {{
    a = MatMul(x, w) b = Div(a, m) y = MatMul(b, r)
}}"""


def write(
    folder: Path, text: str, feeds: dict[str, np.ndarray], **shapes: tuple[int, ...]
) -> tuple[Path, Path]:
    random = np.random.default_rng(0)
    proto = network(
        text, {name: random.standard_normal(shape).astype(np.float32) / 4 for name, shape in shapes.items()}
    )
    onnx.save(proto, folder / "net.onnx")
    np.savez(folder / "data.npz", **feeds)
    return folder / "net.onnx", folder / "data.npz"


def test_weights_that_stay_float_are_named_where_they_are_in_the_way(tmp_path: Path) -> None:
    feeds = {"x": np.zeros((4, 6, 8), np.float32)}
    paths = write(tmp_path, EINSUM, feeds, w=(1, 16, 8), r=(16, 16), head=(16, 3))
    with pytest.raises(InfeasibleBudgetError, match="cannot be met") as error:
        validate(*paths, QuantizeSpec(size=0.25))
    assert "384 values stay float" in error.value.remedy
    assert "'r': it is read by Einsum" in error.value.remedy


def test_layers_that_a_target_leaves_in_float_are_named(tmp_path: Path) -> None:
    text = f"{HEADER}g (int64[n] u) => (float[n,4] y) {{ a = Gather(p, u) y = MatMul(a, w) }}"
    paths = write(tmp_path, text, {"u": np.arange(8)}, p=(300, 16), w=(16, 4))
    spec = QuantizeSpec.model_validate({"size": 0.25, "target": "tensorrt"})
    with pytest.raises(InfeasibleBudgetError, match="cannot be met") as error:
        validate(*paths, spec)
    assert "4,800 values stay float whatever the budget" in error.value.remedy
    assert "tensorrt has no" in error.value.remedy


def test_a_mask_that_hides_everything_is_told_of(tmp_path: Path) -> None:
    feeds = {"x": np.ones((4, 4), np.float32), "m": np.ones((4, 4), np.float32)}
    feeds["m"][1] = 0
    paths = write(tmp_path, MASKED, feeds, w=(4, 4), r=(4, 4))
    with pytest.raises(NonFiniteError, match="in 4 of 16 values") as error:
        validate(*paths, QuantizeSpec(effective_bits=8))
    assert "mask" in error.value.remedy


def test_a_file_that_has_grown_says_so(tmp_path: Path) -> None:
    feeds = {"x": np.random.default_rng(1).standard_normal((16, 4)).astype(np.float32)}
    paths = write(tmp_path, CHAIN, feeds, w=(4, 4), r=(4, 4))
    report = quantize(*paths, QuantizeSpec(effective_bits=8, effort="fast"), tmp_path / "out")
    assert report.model.quantized_bytes > report.model.float_bytes
    assert any("no smaller than the float one" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("count", "told"), [(4, "1 held-back sample,"), (8, "2 held-back samples,"), (12, None)]
)
def test_few_judges_are_told_of(tmp_path: Path, count: int, told: str | None) -> None:
    feeds = {"x": np.random.default_rng(1).standard_normal((count, 4)).astype(np.float32)}
    paths = write(tmp_path, CHAIN, feeds, w=(4, 4), r=(4, 4))
    report = quantize(*paths, QuantizeSpec(effective_bits=8, effort="fast"), tmp_path / "out")
    judged = [note for note in report.warnings if "was judged by" in note]
    assert len(judged) == (told is not None)
    assert all(told in note for note in judged if told)


def test_embeddings_alone_are_no_worse_than_int8_at_its_bytes(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    feeds = {"u": random.integers(0, 300, 160), "v": random.integers(0, 400, 160)}
    paths = write(tmp_path, FACTORS, feeds, p=(300, 16), q=(400, 16), bias=(300, 1))
    quantize_dynamic(paths[0], tmp_path / "int8.onnx", weight_type=QuantType.QInt8)
    size = (tmp_path / "int8.onnx").stat().st_size
    report = quantize(*paths, QuantizeSpec.model_validate({"size": size}), tmp_path / "out")
    assert report.model.quantized_bytes <= size

    def output(path: Path) -> np.ndarray:
        (values,) = InferenceSession(path).run(None, feeds)
        return np.asarray(values)

    exact = output(paths[0])
    lost = [
        float(np.square(output(path) - exact).sum())
        for path in (tmp_path / "out" / "model.onnx", tmp_path / "int8.onnx")
    ]
    assert lost[0] < 2 * lost[1]
    assert report.metrics.sqnr_db > 30


def _least(error: InfeasibleBudgetError) -> int:
    found = re.search(r"at least (\d+) bytes", error.remedy)
    assert found is not None
    return int(found[1])


def test_a_budget_that_an_error_names_is_met(tmp_path: Path) -> None:
    feeds = {"x": np.random.default_rng(1).standard_normal((24, 8, 8, 8)).astype(np.float32)}
    shapes = {"w": (16, 8, 3, 3), "v": (16, 16, 3, 3), "u": (16, 1, 3, 3), "t": (16, 16, 1, 1)}
    paths = write(tmp_path, CONVOLUTIONS, feeds, **shapes)

    def within(size: int) -> Report:
        spec = QuantizeSpec.model_validate({"size": size, "float_islands": 0})
        return quantize(*paths, spec, tmp_path / "out")

    with pytest.raises(InfeasibleBudgetError, match="smallest reachable file is") as early:
        within(100)
    named = _least(early.value)
    assert f"smallest reachable file is {named} bytes" in early.value.message
    assert within(named).model.quantized_bytes <= named
    with pytest.raises(InfeasibleBudgetError) as late:  # what the first look lets through for its zero points
        within(int(0.98 * named))
    least = _least(late.value)
    report = within(least)
    assert least == report.model.quantized_bytes == (tmp_path / "out" / "model.onnx").stat().st_size <= named
