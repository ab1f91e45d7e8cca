"""Signed grids that a model brought along stay what they are, and onnxruntime loads the file."""

import numpy as np
import onnxruntime
import pytest

from quant_core.export import target_of
from quant_core.spec import QuantizeSpec
from tests.quant_core.export.networks import HEADER, Net

WEIGHTS = {"w1": (16, 8, 3, 3), "b1": (16,), "w2": (16, 16, 1, 1)}
POOL = "MaxPool<kernel_shape=[2,2]>"


@pytest.mark.parametrize("target", ["ort-cpu", "portable", "ort-cuda"])
@pytest.mark.parametrize(
    "moved", [f"t = {POOL}(d)", f"m = {POOL}(d)  t = Transpose<perm=[0,1,3,2]>(m)", "t = Identity(d)"]
)
def test_moved_values_of_a_signed_grid_are_read_by_float_operators(moved, target, tmp_path):
    text = f"""{HEADER} g (float[n,8,6,6] x) => (float[n,16,h,w] y) {{
        s = Constant<value_float = 0.05>()  z = Constant<value = int8 {{0}}>()
        a = Conv(x, w1, b1)  q = QuantizeLinear(a, s, z)  d = DequantizeLinear(q, s, z)
        {moved}  e = Sin(t)  y = Conv(e, w2)
    }}"""
    net, path = Net((text, WEIGHTS, {}, {})), tmp_path / "m.onnx"
    chosen = target_of(QuantizeSpec(target=target, size=1.0))
    _, _, simulated = net.export({layer.name: 8 for layer in net.layers}, 8, path, chosen)
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    # A value halfway between two codes may fall to either side.
    assert np.median(np.abs(net.run(path) - simulated)) < 1e-4
