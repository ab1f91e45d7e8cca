"""Graphs before and after normalising, for the tests of its passes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import helper

from quant_core.ingest import normalise

N = helper.make_node


def normal(model) -> ir.Model:
    return normalise(ir.from_proto(model))


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def check_same(run, before, after, feeds, rtol=1e-5):
    for expected, found in zip(run(before, feeds), run(after, feeds), strict=True):
        scale = float(np.abs(expected.astype(np.float64)).max())
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * scale)


def norm(floats, channels):
    names = dict(zip(("s", "b", "m"), floats(3, channels), strict=True))
    return names | {"v": np.abs(floats(channels)) + 0.5}


def bn(source="h", name="bn", **attributes):
    return N("BatchNormalization", [source, "s", "b", "m", "v"], ["y"], name, **attributes)
