"""Measure a latency table: every layer in every form that the export can give it, in turn, inside runs of the model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from quant_core.calibration import activation_ranges, choose_range
from quant_core.errors import SpecError
from quant_core.export import Form, export_model, place, target_of
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.preparation import Prepared, prepare
from quant_core.quantizers import activation_grid, quantize_weight
from quant_core.spec import FLOAT_BITS, LatencyTable, LayerLatency, QuantizeSpec
from quant_core.spec.bits import WIDE_BITS
from quant_core.spec.budget import ANY_SIZE
from quant_core.spec.latency import FileLatency, FormLatency
from quant_core.verification import measure_latency
from quant_core.verification.node_times import NodeTimes, node_times

_BITS = 8
_BLOCK_BITS = (2, 4, 8)
"""Widths that onnxruntime multiplies in blocks without unpacking them."""

_CALIBRATION_SAMPLES = 16


def profile(model: Path, data: Path, spec: QuantizeSpec, *, runs: int = 100) -> LatencyTable:
    """Measure what each layer takes in onnxruntime in each form that the export can give it.

    The float model, one with every layer in integers and, where any layer can, one with packed weights and float
    activations and one for each width that is multiplied in blocks run in turn, with onnxruntime's profiler on; then
    each is timed as a whole beside the float model without it. All integer widths but those of blocks run alike: they
    are unpacked to 8 bits when a file is loaded.

    Args:
        model: The float ONNX file.
        data: The sample file.
        spec: Activation bits, block size and rules; its budget, granularity and islands play no part.
        runs: Timed runs of each form.

    Returns:
        The table.

    Raises:
        SpecError: If the target's kernels are not those of this machine's CPU.
    """
    if not target_of(spec).runs_here:
        raise SpecError(
            f"{spec.target} does not run on this machine, so its layers cannot be timed.",
            remedy="Profile ort-cpu or portable files.",
            where="target",
        )
    spec = spec.model_copy(update={"budget": ANY_SIZE, "granularity": "channel", "float_islands": 0.0})
    job = prepare(model, data, spec)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [
            _write(job, spec, folder / "integer.onnx", _BITS, spec.default_activation_bits),
            *_others(job, spec, folder),
        ]
        plain, *times = node_times(
            [job.reference.path, *(file.path for file in files)], job.layers, job.samples.inputs, runs=runs
        )
        wholes = [measure_latency(job.reference.path, file.path, job.samples.inputs) for file in files]
    integer, whole = times[0], wholes[0]
    others = list(zip(files[1:], times[1:], wholes[1:], strict=True))
    return LatencyTable(
        model=model.name,
        target=spec.target,
        threads=plain.threads,
        batch=plain.batch,
        runs=runs,
        activation_bits=spec.default_activation_bits,
        float_rest=float(np.median(plain.rest)),
        integer_rest=float(np.median(integer.rest)),
        float_total=whole.float_,
        integer_total=whole.quantized,
        block_size=next((spec.block_size for file, _, _ in others if file.form == "block"), None),
        others=tuple(
            FileLatency(
                form=file.form, bits=file.bits, rest=float(np.median(side.rest)), total=told.quantized
            )
            for file, side, told in others
        ),
        layers=tuple(_layer_latency(layer.name, plain, files, times) for layer in job.layers),
    )


def _layer_latency(
    name: str, plain: NodeTimes, files: Sequence[_File], times: Sequence[NodeTimes]
) -> LayerLatency:
    """What a layer takes in float, in integers, which is the first file, and in each other form that it was given."""
    float_ms, float_spread = _median_and_spread(plain.layers[name])
    integer_ms, integer_spread = _median_and_spread(times[0].layers[name])
    others = []
    for file, side in zip(files[1:], times[1:], strict=True):
        if file.forms[name] == file.form:
            ms, spread = _median_and_spread(side.layers[name])
            others.append(FormLatency(form=file.form, bits=file.bits, ms=ms, spread=spread))
    return LayerLatency(
        name=name,
        form=files[0].forms[name],
        float_ms=float_ms,
        float_spread=float_spread,
        integer_ms=integer_ms,
        integer_spread=integer_spread,
        others=tuple(others),
    )


def _median_and_spread(milliseconds: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The median, and how far the quartiles lie apart."""
    low, middle, high = np.percentile(milliseconds, [25, 50, 75])
    return float(middle), float(high - low)


@dataclass(frozen=True, eq=False)
class _File:
    """The model with every layer that can in one form: how each layer runs, and where the file is."""

    form: Form
    bits: int | None
    forms: Mapping[str, Form]
    path: Path


def _others(job: Prepared, spec: QuantizeSpec, folder: Path) -> Iterator[_File]:
    if spec.default_activation_bits != FLOAT_BITS:
        packed = _write(job, spec, folder / "packed.onnx", _BITS, FLOAT_BITS)
        if packed.form in packed.forms.values():
            yield packed
    for bits in _BLOCK_BITS:
        blocks = spec.model_copy(update={"granularity": "block"})
        found = _write(job, blocks, folder / f"block{bits}.onnx", bits, spec.default_activation_bits)
        if "block" in found.forms.values():
            yield found


def _write(job: Prepared, spec: QuantizeSpec, path: Path, width: int, activation_bits: int) -> _File:
    """Write the model with every layer that may be in integers at one width."""
    bits = {
        name: FLOAT_BITS if choice.bits == (FLOAT_BITS,) else width for name, choice in job.candidates.items()
    }
    placement = place(job.model, job.layers, bits, activation_bits, job.target, spec)
    blocks = spec.granularity == "block"
    form: Form = "block" if blocks else "weight_only" if activation_bits == FLOAT_BITS else "static"
    file = _File(form, width if blocks else None, dict(placement.forms), path)
    if blocks and "block" not in file.forms.values():
        return file
    ranges = {}
    if placement.points:
        ranges = activation_ranges(
            job.program,
            job.samples.first(job.samples.batch or _CALIBRATION_SAMPLES),
            placement.points,
            batch_size=job.batch_size,
            on_batch=lambda _done, _total: None,
        )
    weights = {}
    for layer in job.layers:
        if bits[layer.name] != FLOAT_BITS:
            weight = stored_tensor(job.model, layer.weight).numpy()
            grid = replace(spec.grid(width), range_search="minmax")
            weights[layer.name] = quantize_weight(weight, width, layer.step_axis(grid), grid)
    grids = {}
    for name, observed in ranges.items():
        wide = WIDE_BITS if name in placement.wide else _BITS
        grids[name] = activation_grid(*choose_range(observed, "mse", wide), wide)
    onnx.save(export_model(job.model, job.layers, weights, placement, grids, job.target), path)
    return file
