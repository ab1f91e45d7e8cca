"""The finished file of a graph that was analysed by whole runs, as the user's file takes and gives them."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from quant_core.export.storage.model_file import file_bytes
from quant_core.ingest.run_axis import remove_run_axis
from quant_core.spec import Report


def without_run_axis(path: Path, report: Report) -> Report:
    """Take the axis that counted runs away again.

    Args:
        path: The finished file; changed.
        report: What was told of it.

    Returns:
        The same report with the file's bytes; what was predicted loses the same nodes.
    """
    before = file_bytes(path)
    model = ir.load(path)
    remove_run_axis(model)
    ir.save(model, path)
    gone, told = before - file_bytes(path), report.model
    size = told.quantized_bytes - gone
    changed = {
        "quantized_bytes": size,
        "predicted_bytes": told.predicted_bytes - gone,
        "ratio": size / told.float_bytes,
    }
    return report.model_copy(update={"model": told.model_copy(update=changed)})
