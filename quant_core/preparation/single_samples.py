"""Models whose inputs leave the batch open, and which take one sample a run all the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir
import onnxruntime as ort

from quant_core.calibration import Samples
from quant_core.errors import ModelError
from quant_core.ingest import Source


def one_by_one(source: Source, graphs: Iterable[ir.Model], samples: Samples, failure: ModelError) -> Samples:
    """Fix the batch at 1 where onnxruntime runs one sample and not several.

    Exporters declare every first axis open, and write sizes of one sample into the nodes between.

    Args:
        source: The user's file.
        graphs: Its normalised graphs; their inputs get a first axis of 1.
        samples: The user's samples.
        failure: Why onnxruntime does not run several.

    Returns:
        The same samples, of which one is demanded a run.

    Raises:
        ModelError: `failure`, where the batch is fixed already or one sample fails as well.
    """
    if samples.batch is not None or not _runs(source, samples.first(1)):
        raise failure
    for graph in graphs:
        fix_batch(graph)
    return replace(samples, batch=1)


def fix_batch(model: ir.Model) -> None:
    """Give every input a first axis of 1.

    Args:
        model: A graph whose inputs have shapes; changed.
    """
    for value in model.graph.inputs:
        if value.shape is not None and value.name not in model.graph.initializers:
            value.shape = ir.Shape([1, *value.shape.dims[1:]])


def is_open(model: ir.Model) -> bool:
    """Whether the inputs leave the batch open.

    Args:
        model: The user's graph.

    Returns:
        Whether no first axis of an input has a number.
    """
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    return not any(value.shape and isinstance(value.shape[0], int) for value in inputs)


def _runs(source: Source, sample: Samples) -> bool:
    if any(value.shape is None for value in source.model.graph.inputs):
        return False
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(source.path, options, providers=["CPUExecutionProvider"])
        known = {entry.name for entry in session.get_inputs()}
        session.run(None, {name: rows for name, rows in sample.inputs.items() if name in known})
    except Exception:  # onnxruntime's own exceptions have no common class
        return False
    return True
