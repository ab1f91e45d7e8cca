"""What is compared: a quantized file, its float model, and samples that decided nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from quant_core.artifacts import MODEL, REPORT_JSON
from quant_core.calibration import Samples, load_samples, split_samples
from quant_core.calibration.array_file import read_ranks
from quant_core.errors import ModelError
from quant_core.ingest import Layer, find_layers, normalise, read_model
from quant_core.ingest.run_axis import add_run_axis, counts_runs
from quant_core.preparation import prepare
from quant_core.preparation.equalizing import equalize, expected_bits
from quant_core.preparation.scores import with_scores
from quant_core.preparation.whole_runs import by_whole_runs
from quant_core.scoring.scored import equalized_bits
from quant_core.spec import Report
from quant_core.spec.progress import Tell
from quant_core.written_files import read_written

_REMEDY = "Give the folder that `bitwright quantize` wrote, or the quantized .onnx file itself, from another folder."


@dataclass(frozen=True, eq=False)
class Case:
    """A quantized file beside its float model.

    Attributes:
        path: The quantized file.
        quantized: What it holds, with outputs and axes as the float model has them.
        model: The float model, normalised, its channels scaled as the file's were.
        layers: Its layers.
        samples: What both are run on.
        bits: Layer name -> bits of its weight, of two widths both, as far as a job told.
    """

    path: Path
    quantized: onnx.ModelProto
    model: ir.Model
    layers: tuple[Layer, ...]
    samples: Samples
    bits: Mapping[str, tuple[int, int | None]]


def read_case(model: Path, quantized: Path, data: Path, most: int, tell: Tell) -> Case:
    """Read what is compared; held-back samples where the job is known, else the first.

    Args:
        model: The float ONNX file.
        quantized: A quantized ONNX file, or the folder of the job that made it.
        data: The sample file.
        most: Most samples.
        tell: Told what is done.

    Returns:
        The case.

    Raises:
        ModelError: If a file is no model, or the folder holds no report of a job.
        SamplesError: If the samples do not fit.
    """
    folder = _folder_of(quantized)
    path = quantized if folder is None else folder / MODEL
    proto = _load(path)
    if folder is None:
        graph = normalise(by_whole_runs(with_scores(read_model(model))[0], data).model)
        layers, samples, bits = find_layers(graph), load_samples(data, graph), {}
    else:
        report = read_written(Report, folder / REPORT_JSON, "a quantization", _REMEDY)
        job = prepare(model, data, report.spec)
        calibration, samples = split_samples(job.samples, report.spec.held_back, report.spec.seed)
        scaled_for = equalized_bits(folder) or expected_bits(job, report.spec.budget)
        job = equalize(
            job, calibration, report.spec, scaled_for, lambda fraction, message: tell(0.1 * fraction, message)
        )
        graph, layers = job.model, job.layers
        bits = {layer.name: (layer.weight_bits, layer.narrow_bits) for layer in report.layers}
    _show_scores(proto, graph.graph)
    return Case(path, _by_whole_runs(proto, data), graph, layers, samples.first(most), bits)


def _folder_of(quantized: Path) -> Path | None:
    """Folder of the job that made a file; None for a file that lies elsewhere."""
    if quantized.is_dir():
        return quantized
    in_one = quantized.name == MODEL and (quantized.parent / REPORT_JSON).is_file()
    return quantized.parent if in_one else None


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ModelError(
            "there is no such quantized file.",
            remedy="Give an .onnx file or a job's folder.",
            where=str(path),
        )
    try:
        return onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ModelError(
            "this is not an ONNX file.",
            remedy="Give the quantized .onnx file, or its job's folder.",
            where=str(path),
        ) from error


def _show_scores(quantized: onnx.ModelProto, model: ir.Graph) -> None:
    """Make outputs of the scores that the float model is measured by, where the file gives only what it chose."""
    graph = quantized.graph
    made = {name for node in graph.node for name in node.output} - {output.name for output in graph.output}
    for name in (str(value.name) for value in model.outputs):
        if name in made:
            graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))


def _by_whole_runs(proto: onnx.ModelProto, data: Path) -> onnx.ModelProto:
    model = ir.serde.deserialize_model(proto)
    if not counts_runs(model, read_ranks(data)):
        return proto
    add_run_axis(model)
    return ir.serde.serialize_model(model)
