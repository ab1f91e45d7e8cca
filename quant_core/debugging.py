"""Where a quantized file loses, layer by layer, and what more bits would give back."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from pydantic import ValidationError

from quant_core.artifacts import MODEL, REPORT_JSON
from quant_core.calibration import Samples, load_samples, split_samples
from quant_core.calibration.array_file import read_ranks
from quant_core.errors import ModelError
from quant_core.ingest import Layer, find_layers, normalise, read_model
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.ingest.run_axis import add_run_axis, counts_runs
from quant_core.preparation import prepare
from quant_core.preparation.equalizing import equalize, expected_bits
from quant_core.preparation.scores import with_scores
from quant_core.preparation.whole_runs import by_whole_runs
from quant_core.quantizers import quantize_weight
from quant_core.scoring.scored import equalized_bits
from quant_core.spec import Report
from quant_core.spec.debugging import Debugging, LayerFinding
from quant_core.spec.progress import Tell, tell_nobody
from quant_core.spec.weight_grid import WeightGrid
from quant_core.verification import Difference, open_session, run_batches, sqnr_db
from quant_core.verification.float_twins import FloatTwins

_BYTE = 8


@dataclass(frozen=True, eq=False)
class _Case:
    """A float model, its layers, samples to run, and the bits that a report tells, of two widths both."""

    model: ir.Model
    layers: tuple[Layer, ...]
    samples: Samples
    bits: Mapping[str, tuple[int, int | None]]


def debug(
    model: Path,
    quantized: Path,
    data: Path,
    *,
    worst: int = 10,
    samples: int = 32,
    on_progress: Tell = tell_nobody,
) -> Debugging:
    """Find the layers of a quantized file that lose most, and try what other weights would give back.

    One run with a twin beside every layer that has its float weight shows where error enters; then each of the worst
    layers gets its float weight, and one of 8 bits, and the output is compared again. Nodes run as they are written,
    without onnxruntime's fusions.

    Args:
        model: The float ONNX file.
        quantized: The quantized file, or the folder of the job that made it: then layers whose channels were scaled
            are understood, bits are known, and the job's held-back samples are run. A file that lies in such a folder
            stands for it.
        data: The sample file; that of the job where its folder is known.
        worst: Layers to try other weights for.
        samples: The most samples run.
        on_progress: Told what is done; may raise to stop.

    Returns:
        The layers, worst first.

    Raises:
        ModelError: If the files are no models, or have no layer in common.
        SamplesError: If the samples do not fit.
    """
    folder = _folder_of(quantized)
    path = quantized if folder is None else folder / MODEL
    proto = _load(path)
    case = _case(model, folder, data, samples, on_progress)
    _show_scores(proto, case.model.graph)
    proto = _by_whole_runs(proto, data)
    twins = FloatTwins(proto, case.model, case.layers)
    if not twins.found:
        raise ModelError(
            "no layer of the float model is found in the quantized file by the name of its node or output.",
            remedy="Give the float model that the file was made from.",
            where=str(path),
        )
    with _Runs(path, case, twins) as runs:
        on_progress(0.1, f"{len(twins.found)} layers against their float weights")
        base, gathered, own = runs.everything()
        if not base.parts:
            raise ModelError(
                "the sizes of all outputs depend on what the net finds, so nothing can be compared.",
                remedy="Give scores or boxes before their selection out as well.",
                where=model.name,
            )
        chosen = sorted(twins.found, key=lambda layer: own[layer.name].sqnr_db)[:worst]
        gains: dict[str, _Gain] = {}
        for index, layer in enumerate(chosen):
            on_progress(0.2 + 0.8 * index / len(chosen), f"other weights for {layer.name}")
            gains[layer.name] = _gain(runs, layer, base)
    found = [_finding(layer, case, gathered, own, gains.get(layer.name, _Gain())) for layer in twins.found]
    names = {layer.name for layer in twins.found}
    return Debugging(
        model=str(model),
        quantized=str(path),
        output=", ".join(base.parts),
        samples=case.samples.count,
        output_sqnr_db=base.sqnr_db,
        layers=tuple(sorted(found, key=_badness)),
        not_found=tuple(layer.name for layer in case.layers if layer.name not in names),
    )


@dataclass(frozen=True)
class _Gain:
    """What other weights for one layer give back; None where they were not tried.

    Attributes:
        whole: Decibels of its float weight.
        byte: Decibels of one of 8 bits.
        share: Share of the noise that goes with the float weight.
    """

    whole: float | None = None
    byte: float | None = None
    share: float | None = None


def _gain(runs: _Runs, layer: Layer, base: _Outputs) -> _Gain:
    weight = runs.weights[layer.weight]
    whole = runs.output_with(layer, weight)
    share = 1 - whole.noise / base.noise if base.noise else 0.0
    wide, narrow = runs.case.bits.get(layer.name, (0, None))
    if (narrow or wide) >= _BYTE:
        return _Gain(whole.gain_db(base), None, share)
    codes = quantize_weight(weight, _BYTE, layer.step_axis(WeightGrid()))
    return _Gain(whole.gain_db(base), runs.output_with(layer, codes.dequantize()).gain_db(base), share)


def _finding(
    layer: Layer,
    case: _Case,
    gathered: Mapping[str, Difference | None],
    own: Mapping[str, Difference],
    gain: _Gain,
) -> LayerFinding:
    wide, narrow = case.bits.get(layer.name, (None, None))
    so_far = gathered[layer.name]
    return LayerFinding(
        name=layer.name,
        op=layer.op,
        parameters=layer.parameters,
        weight_bits=wide,
        narrow_bits=narrow,
        sqnr_db=None if so_far is None else so_far.sqnr_db,
        own_sqnr_db=own[layer.name].sqnr_db,
        float_gain_db=gain.whole,
        byte_gain_db=gain.byte,
        share=gain.share,
    )


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


def _badness(layer: LayerFinding) -> tuple[bool, float]:
    if layer.float_gain_db is not None:
        return False, -layer.float_gain_db
    return True, layer.own_sqnr_db


def _folder_of(quantized: Path) -> Path | None:
    """Folder of the job that made a file; None for a file that lies elsewhere."""
    if quantized.is_dir():
        return quantized
    in_one = quantized.name == MODEL and (quantized.parent / REPORT_JSON).is_file()
    return quantized.parent if in_one else None


def _report_in(folder: Path) -> Report:
    """Read what the job of a folder told of its file."""
    path = folder / REPORT_JSON
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"no job told of its file there: {path.name} cannot be read ({error.strerror}).",
            remedy="Give the folder that `bitwright quantize` wrote, or the quantized .onnx file itself.",
            where=str(folder),
        ) from error
    except ValidationError as error:
        raise ModelError(
            "this is not the report of a job of this version.",
            remedy="Quantize again, or give the quantized .onnx file from another folder.",
            where=str(path),
        ) from error


def _case(model: Path, folder: Path | None, data: Path, most: int, tell: Tell) -> _Case:
    if folder is None:
        graph = normalise(by_whole_runs(with_scores(read_model(model))[0], data).model)
        return _Case(graph, find_layers(graph), load_samples(data, graph).first(most), {})
    report = _report_in(folder)
    job = prepare(model, data, report.spec)
    calibration, held_back = split_samples(job.samples, report.spec.held_back, report.spec.seed)
    scaled_for = equalized_bits(folder) or expected_bits(job, report.spec.budget)
    job = equalize(
        job, calibration, report.spec, scaled_for, lambda fraction, message: tell(0.1 * fraction, message)
    )
    bits = {layer.name: (layer.weight_bits, layer.narrow_bits) for layer in report.layers}
    return _Case(job.model, job.layers, held_back.first(most), bits)


class _Outputs:
    """How far all outputs are from the float net's, each in shares of its own size.

    Attributes:
        parts: Output name -> its difference; outputs of another shape, such as what a selection found, are left out.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.parts = {name: Difference(name) for name in names}

    def add(self, expected: Mapping[str, NDArray[Any]], values: Mapping[str, NDArray[Any]]) -> None:
        for name in list(self.parts):
            if expected[name].shape == values[name].shape:
                self.parts[name].add(expected[name], values[name])
            else:
                del self.parts[name]

    @property
    def noise(self) -> float:
        """Mean share of squared error."""
        shares = [
            part.noise / part.signal if part.signal else float(part.noise > 0) for part in self.parts.values()
        ]
        return sum(shares) / max(len(shares), 1)

    @property
    def sqnr_db(self) -> float:
        return sqnr_db(1.0, self.noise)

    def gain_db(self, base: _Outputs) -> float:
        """What is gained over a base, in the outputs that both have."""
        common = _Outputs([])
        common.parts = {name: part for name, part in base.parts.items() if name in self.parts}
        return self.sqnr_db - common.sqnr_db


class _Runs:
    """Runs of the float model and of variants of the quantized file, on the same samples."""

    def __init__(self, path: Path, case: _Case, twins: FloatTwins) -> None:
        self.path, self.case, self.twins = path, case, twins
        outputs = case.model.graph.outputs
        self.outputs = [
            str(value.name) for value in outputs if value.dtype and value.dtype.is_floating_point()
        ]
        if not self.outputs:
            raise ModelError(
                "no output holds floats, so nothing can be compared.", remedy="Give scores out as well."
            )
        self.weights: dict[str, NDArray[np.floating]] = {
            layer.weight: stored_tensor(case.model, layer.weight).numpy() for layer in case.layers
        }
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> _Runs:
        self._float = Path(self._folder.name) / "float.onnx"
        ir.save(self.case.model, self._float, external_data="float.data")  # no message holds 2 GiB
        self._references = [dict(values) for _, values in self._run_float([])]
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def everything(self) -> tuple[_Outputs, dict[str, Difference | None], dict[str, Difference]]:
        """Compare the outputs, and at every layer: quantized with float, and the stored weight with the float one.

        Returns:
            The outputs; by layer quantized with float, None where the file computes other places or rows, such as those
            that rounding sends an expert; by layer its stored weight with the float one.
        """
        triples = {layer.name: self.twins.results(layer) for layer in self.twins.found}
        base = _Outputs(self.outputs)
        gathered: dict[str, Difference | None] = {name: Difference(name) for name in triples}
        own = {name: Difference(name) for name in triples}
        inner = [plain for uses in triples.values() for plain, _, _ in uses]
        pairs = zip(self._run_float(inner), self._run(self.twins.beside(self.weights)), strict=True)
        for (_, expected), (_, values) in pairs:
            base.add(expected, values)
            for name, uses in triples.items():
                for plain, result, twin in uses:
                    so_far = gathered[name]
                    if so_far is None or expected[plain].shape != values[result].shape:
                        gathered[name] = None
                    else:
                        so_far.add(expected[plain], values[result])
                    own[name].add(values[twin], values[result])
        return base, gathered, own

    def output_with(self, layer: Layer, weight: NDArray[np.floating]) -> _Outputs:
        """Compare the outputs where one layer has another weight."""
        difference = _Outputs(self.outputs)
        runs = self._run(self.twins.instead(layer, weight))
        for expected, (_, values) in zip(self._references, runs, strict=True):
            difference.add(expected, values)
        return difference

    def _run_float(self, inner: Sequence[str]) -> Any:
        proto = onnx.load(self._float, load_external_data=False)
        known = {output.name for output in proto.graph.output}
        for name in dict.fromkeys(inner):
            if name not in known:
                proto.graph.output.append(
                    onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                )
        path = Path(self._folder.name) / "inner.onnx"
        onnx.save(proto, path)
        return run_batches(open_session(path), self.case.samples.inputs, self._batch())

    def _run(self, proto: onnx.ModelProto) -> Any:
        # Beside the file, where its external data is found.
        with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=".debug-", suffix=".onnx") as file:
            file.write(proto.SerializeToString())
            file.flush()
            session = open_session(Path(file.name), literal=True)
        return run_batches(session, self.case.samples.inputs, self._batch())

    def _batch(self) -> int:
        return self.case.samples.batch or min(self.case.samples.count, 8)
