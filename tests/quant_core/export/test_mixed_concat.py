"""A Concat of codes and of what a float operator writes: the float part is rounded, and bytes are put together."""

import numpy as np
import pytest

from tests.quant_core.export.networks import HEADER, Net, optimized_operators

WEIGHTS = {"w1": (16, 8, 3, 3), "b1": (16,), "w2": (16, 6, 1, 1), "w3": (16, 22, 1, 1)}


def _net(between):
    text = f"""{HEADER} g (float[n,8,6,6] x) => (float[n,16,6,6] y) {{
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
        {between}
    }}"""
    return Net((text, WEIGHTS, {"QLinearConv"}, {}))


def test_the_float_part_is_rounded(tmp_path):
    net = _net("t = ConvTranspose(a, w2)  c = Concat<axis=1>(t, a)  y = Conv(c, w3)")
    path = tmp_path / "model.onnx"
    placement, _, simulated = net.export({layer.name: 4 for layer in net.layers}, 8, path)
    assert {"a", "t", "c"} <= set(placement.points)
    assert np.abs(net.run(path) - simulated).max() <= 1.01 * net.grids["y"].scale
    kernels = optimized_operators(path)
    assert "QLinearConcat" in kernels
    assert "Concat" not in kernels


@pytest.mark.parametrize(
    ("between", "float_part"),
    [
        (
            "t = ConvTranspose(a, w2)  c = Concat<axis=1>(t, a)  s = Sin(t)  z = Conv(c, w3)  y = Concat<axis=1>(z, s)",
            "t",
        ),
        ("t = Sin(a)  u = Cos(a)  c = Concat<axis=1>(t, u)  y = Conv(c, w4)", "t"),
    ],
    ids=["read by another", "no codes"],
)
def test_what_is_better_kept_in_float_stays(between, float_part, tmp_path):
    net = Net(
        (
            f"""{HEADER} g (float[n,8,6,6] x) => (float[n,c,6,6] y) {{
                a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
                {between}
            }}""",
            WEIGHTS | {"w4": (16, 32, 1, 1)},
            {"QLinearConv"},
            {},
        )
    )
    placement, _, simulated = net.export({layer.name: 4 for layer in net.layers}, 8, tmp_path / "model.onnx")
    assert float_part not in placement.points
    assert np.abs(net.run(tmp_path / "model.onnx") - simulated).max() <= 1.01 * max(
        grid.scale for grid in net.grids.values()
    )
