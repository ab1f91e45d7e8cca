"""Subgraphs read what the simulation gives them, and onnxruntime loads the file."""

import numpy as np
import onnx
import pytest

from tests.quant_core.export.networks import HEADER, Net

WEIGHTS = {"w1": (16, 8, 3, 3), "b1": (16,), "w2": (16, 16, 1, 1)}
MOVED = "Transpose<perm=[0,1,3,2]>"
CASES = {  # what is computed -> what the subgraph reads
    "what a kernel writes": ("t = Sin(a)", "a"),
    "codes moved for it alone": (f"m = {MOVED}(a)  t = Sin(a)", "m"),
    "codes moved for others too": (f"m = {MOVED}(a)  t = Sin(m)", "m"),
    "what is moved and then rounded": (f"m = Sin(a)  t = {MOVED}(m)", "m"),
}


@pytest.mark.parametrize("case", CASES)
def test_subgraphs_read_what_the_simulation_gives_them(case, tmp_path):
    between, read = CASES[case]
    text = f"""{HEADER} g (float[n,8,6,6] x, bool yes) => (float[n,16,h,w] y) {{
        a = Conv(x, w1, b1)  {between}  c = Conv(t, w2)  e = Atan(c)
        i = If(yes) <then_branch = g1 () => (float[n,16,h,w] p) {{ p = Tanh({read}) }},
                     else_branch = g2 () => (float[n,16,h,w] q) {{ q = Sin({read}) }}>
        y = Add(e, i)
    }}"""
    net = Net((text, WEIGHTS, {}, {}))
    net.feeds["yes"] = np.array(True)
    _, _, simulated = net.export({layer.name: 8 for layer in net.layers}, 8, tmp_path / "m.onnx")
    assert np.median(np.abs(net.run(tmp_path / "m.onnx") - simulated)) < 1e-5


def test_whole_numbers_that_subgraphs_read_stay_what_they_are(tmp_path):
    # As torch's exporter writes an EmbeddingBag: positions that a Loop cuts into slices.
    text = f"""{HEADER} g (float[n,8,6,6] x, bool yes) => (float[n,16,h,w] y) {{
        a = Conv(x, w1, b1)  s = Shape(a)  c = Unsqueeze(s, zero)  d = Squeeze(c, zero)
        i = If(yes) <then_branch = g1 () => (int64[4] p) {{ p = Identity(d) }},
                     else_branch = g2 () => (int64[4] q) {{ q = Abs(d) }}>
        e = Expand(a, i)  y = Conv(e, w2)
    }}"""
    net = Net((text, WEIGHTS, {}, {"zero": [0]}))
    net.feeds["yes"] = np.array(True)
    _, _, simulated = net.export({layer.name: 8 for layer in net.layers}, 8, tmp_path / "m.onnx")
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)
    assert np.median(np.abs(net.run(tmp_path / "m.onnx") - simulated)) < 1e-5
