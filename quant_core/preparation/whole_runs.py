"""Samples that are whole runs of a graph whose inputs have no axis in common that counts samples."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from quant_core.calibration.array_file import read_ranks
from quant_core.calibration.load import LABELS
from quant_core.errors import SamplesError
from quant_core.ingest import Source
from quant_core.ingest.run_axis import add_run_axis, counts_runs

ANALYSED_BY_RUNS = (
    "each sample is a whole run of the graph, which was analysed and timed run by run; the file takes what the float "
    "model takes."
)


def by_whole_runs(source: Source, data: Path) -> Source:
    """Put an axis that counts runs in front of every input, where the samples have it.

    Args:
        source: The user's file; its graph is changed.
        data: The sample file.

    Returns:
        The same, or a copy of the file whose inputs and outputs have a first axis of 1; it lives as long as what is
        returned.

    Raises:
        SamplesError: If there are labels as well.
    """
    ranks = read_ranks(data)
    if not counts_runs(source.model, ranks):
        return source
    if LABELS in ranks and all(value.name != LABELS for value in source.model.graph.inputs):
        raise SamplesError(
            "labels name a class for each sample, and each sample here is a whole run of the graph.",
            remedy="Leave the labels out.",
            where=str(data),
        )
    add_run_axis(source.model)
    folder = Path(tempfile.mkdtemp(prefix="bitwright-"))
    path = folder / source.path.name
    ir.save(source.model, path, external_data=f"{path.name}.data")
    wrapped = replace(source, path=path, whole_runs=True)
    weakref.finalize(wrapped, shutil.rmtree, folder, ignore_errors=True)
    return wrapped
