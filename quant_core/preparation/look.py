"""Shapes by running one sample, for graphs whose shapes cannot be inferred."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from quant_core.calibration import load_samples
from quant_core.calibration.array_file import read_ranks
from quant_core.errors import BitwrightError
from quant_core.executor import compile_model
from quant_core.ingest.run_axis import add_run_axis, counts_runs
from quant_core.ingest.static_shapes import Shapes


def look_at_shapes(model: ir.Model, data: Path | None = None) -> Shapes | None:
    """Run one sample and note the shape of every tensor.

    Args:
        model: A normalised model.
        data: Samples; without them zeros are run where all sizes but the batch are fixed.

    Returns:
        The shapes; None where there is nothing to run, or zeros are nothing that the graph can run.

    Raises:
        SamplesError: If the samples do not fit the graph.
    """
    if data is not None:
        if counts_runs(model, read_ranks(data)):
            whole = model.clone()
            add_run_axis(whole)
            runs = load_samples(data, whole).first(1).feeds()
            return _run(model, {name: rows[0] for name, rows in runs.items()}, 1)
        samples = load_samples(data, model)
        return _run(model, samples.first(1).feeds(), samples.unit)
    zeros = _zeros(model)
    if zeros is None:
        return None
    try:
        return _run(model, *zeros)
    except BitwrightError:
        return None  # zeros were our idea, so it is no fault of the model


def _zeros(model: ir.Model) -> tuple[dict[str, torch.Tensor], int] | None:
    feeds, batch = {}, 1
    for value in model.graph.inputs:
        if value.shape is None or value.dtype is None or value.dtype.is_string() or not len(value.shape):
            return None
        first, *rest = value.shape.dims
        batch = first if isinstance(first, int) else 1
        sizes = [size for size in rest if isinstance(size, int)]
        if len(sizes) != len(rest):
            return None
        kind = np.float32 if value.dtype == ir.DataType.BFLOAT16 else value.dtype.numpy()
        feeds[value.name or ""] = torch.from_numpy(np.zeros((batch, *sizes), kind))
    return feeds, batch


def _run(model: ir.Model, feeds: dict[str, torch.Tensor], batch: int) -> Shapes:
    values = compile_model(model).every_tensor(feeds)
    return Shapes({name: tuple(value.shape) for name, value in values.items()}, batch)
