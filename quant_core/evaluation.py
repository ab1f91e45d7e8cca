"""The metric of a model file, float or quantized, on labelled samples."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from quant_core.calibration import load_samples
from quant_core.errors import ModelError, SamplesError
from quant_core.ingest.reading.external_data import check_external_data
from quant_core.ingest.reading.file_kind import EXPORT_REMEDY, foreign_kind
from quant_core.ingest.reading.structure import check_structure
from quant_core.processors.granted import available_processors
from quant_core.spec import Evaluation
from quant_core.verification import choose_batch, find_correct, open_session, run_batches
from quant_core.verification.intervals import share_interval

_FLOAT8 = frozenset({ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2})


def evaluate(model: Path, data: Path, *, threads: int | None = None) -> Evaluation:
    """Measure the top-1 accuracy of a model in onnxruntime.

    Args:
        model: An ONNX file, float or quantized. Of its outputs that hold class numbers, or scores of the classes that
            the labels number, the one that is right most often counts.
        data: A sample file with `labels`, one class number a sample.
        threads: Threads onnxruntime gets; default all cores this process may use.

    Returns:
        The metric, and how long the runs took.

    Raises:
        ModelError: If the file is not an ONNX model that onnxruntime runs.
        SamplesError: If the samples do not fit the graph, or have no labels.
    """
    model, data = Path(model), Path(data)
    graph = _load(model)
    samples = load_samples(data, graph)
    if samples.labels is None:
        raise SamplesError(
            "the file holds no labels, and without them there is no metric.",
            remedy="Add an array named labels with one class number a sample.",
            where=str(data),
        )
    threads = threads or available_processors()
    # onnxruntime's rewrites for CPUs fail on such activations, or make garbage of them.
    session = open_session(model, threads=threads, literal=_rounds_to_float8(graph))
    batch = choose_batch(session, samples.inputs)
    output = None
    correct, times = 0, []
    start = time.perf_counter()
    for part, values in run_batches(session, samples.inputs, batch):
        times.append(time.perf_counter() - start)
        labels = samples.labels[part]
        output = output or _answering(values, labels)
        correct += _right(values[output], labels, output)
        start = time.perf_counter()
    value = correct / samples.labels.size
    return Evaluation(
        model=model.name,
        metric="top1",
        value=value,
        samples=samples.count,
        seconds=sum(times),
        batch=min(batch, samples.count),
        batch_latency_ms=1e3 * statistics.median(times),
        threads=threads,
        interval=share_interval(value * samples.count, samples.count),
    )


def _rounds_to_float8(model: ir.Model) -> bool:
    """Tell whether activations become 8-bit floats."""
    rounding = [node for node in model.graph if node.op_type == "QuantizeLinear"]
    zeros = [node.inputs[2] for node in rounding if len(node.inputs) > 2]
    return any(zero is not None and zero.dtype in _FLOAT8 for zero in zeros)


def _answering(values: Mapping[str, NDArray[Any]], labels: NDArray[Any]) -> str:
    """Find the output that answers what the labels ask; the first one if none does."""
    fitting = [
        name
        for name, value in values.items()
        if _numbers_classes(value, labels)
        or (value.dtype.kind == "f" and value.ndim == 2 and labels.max(initial=0) < value.shape[1] > 1)
    ]
    return max(fitting or list(values)[:1], key=lambda name: _right(values[name], labels, name))


def _numbers_classes(value: NDArray[Any], labels: NDArray[Any]) -> bool:
    return value.dtype.kind in "iu" and value.size == labels.size


def _right(value: NDArray[Any], labels: NDArray[Any], name: str) -> int:
    if _numbers_classes(value, labels):
        return int((value.reshape(labels.shape) == labels).sum())
    return int(find_correct(value, labels, name).sum())


def _load(path: Path) -> ir.Model:
    # Unlike ingest, which refuses quantized graphs, this only needs to know the inputs and that the file is harmless.
    where = str(path)
    if not path.is_file():
        raise ModelError(
            "there is no such model file.", remedy="Give the path of an .onnx file.", where=where
        )
    with path.open("rb") as stream:
        kind = foreign_kind(path, stream.read(512))
    if kind is not None:
        raise ModelError(f"this is {kind}, not an ONNX file.", remedy=EXPORT_REMEDY, where=where)
    try:
        proto = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ModelError(
            "this is not an ONNX file, or it is cut short.", remedy=EXPORT_REMEDY, where=where
        ) from error
    check_structure(proto, path)
    check_external_data(proto, path)
    return ir.serde.deserialize_model(proto)
