"""Graphs before and after normalising, in onnxruntime, for the tests of its passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import helper

from quant_core.ingest import normalise

N = helper.make_node


def run_model(
    model: onnx.ModelProto | ir.Model | Path, feeds: dict[str, np.ndarray], *, as_written: bool = False
) -> list[np.ndarray]:
    """Run a model in onnxruntime on one thread, where asked without onnxruntime's own rewriting."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if isinstance(model, ir.Model):
        model = ir.to_proto(model)
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def kept(
    proto: onnx.ModelProto, feeds: dict[str, np.ndarray], tolerance: float = 1e-5, *, as_written: bool = False
) -> ir.Model:
    """Normalise a model, which must pass onnx's checker and compute what it did before."""
    found = normal(proto)
    after = ir.to_proto(found)
    onnx.checker.check_model(after, full_check=True)
    ours, theirs = (run_model(model, feeds, as_written=as_written) for model in (after, proto))
    for one, other in zip(ours, theirs, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    return found


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
