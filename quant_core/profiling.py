"""Measure a latency table: every layer in float and in integers, in turn, inside runs of the whole model."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx

from quant_core.calibration import activation_ranges, choose_range
from quant_core.errors import SpecError
from quant_core.export import export_model, place, target_of
from quant_core.preparation import Prepared, prepare
from quant_core.quantizers import activation_grid, quantize_weight
from quant_core.spec import FLOAT_BITS, Budget, LatencyTable, LayerLatency, QuantizeSpec
from quant_core.spec.bits import WIDE_BITS
from quant_core.verification import measure_latency
from quant_core.verification.node_times import node_times

_BITS = 8
_CALIBRATION_SAMPLES = 16
_ANY_SIZE = Budget(size=2.0**62)


def profile(model: Path, data: Path, spec: QuantizeSpec, *, runs: int = 100) -> LatencyTable:
    """Measure what each layer takes in onnxruntime in each form that the export can give it.

    The float model and one with every layer in integers run in turn, with onnxruntime's profiler on; then both are
    timed as wholes without it. All integer widths run alike: they are unpacked to 8 bits when a file is loaded.

    Args:
        model: The float ONNX file.
        data: The sample file.
        spec: Activation bits and rules; its budget plays no part.
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
    job = prepare(model, data, spec.model_copy(update={"budget": _ANY_SIZE}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "integer.onnx"
        forms = _export_integers(job, spec, path)
        plain, integer = node_times([job.reference.path, path], job.layers, job.samples.inputs, runs=runs)
        whole = measure_latency(job.reference.path, path, job.samples.inputs)
    rows = []
    for layer in job.layers:
        before, after = (np.percentile(side.layers[layer.name], [25, 50, 75]) for side in (plain, integer))
        rows.append(
            LayerLatency(
                name=layer.name,
                form=forms[layer.name],
                float_ms=float(before[1]),
                float_spread=float(before[2] - before[0]),
                integer_ms=float(after[1]),
                integer_spread=float(after[2] - after[0]),
            )
        )
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
        layers=tuple(rows),
    )


def _export_integers(job: Prepared, spec: QuantizeSpec, path: Path) -> dict[str, str]:
    """Write the model with every layer that may be in integers at 8 bits; how each runs."""
    bits = {
        name: FLOAT_BITS if choice.bits == (FLOAT_BITS,) else _BITS for name, choice in job.candidates.items()
    }
    placement = place(job.model, job.layers, bits, spec.default_activation_bits, job.target)
    count = job.samples.batch or min(job.samples.count, _CALIBRATION_SAMPLES)
    ranges = activation_ranges(
        job.program,
        job.samples.take(np.arange(count)),
        placement.points,
        batch_size=job.batch_size,
        device=job.device,
        on_batch=lambda _done, _total: None,
    )
    weights = {}
    for layer in job.layers:
        if bits[layer.name] != FLOAT_BITS:
            tensor = job.model.graph.initializers[layer.weight].const_value
            assert tensor is not None
            weights[layer.name] = quantize_weight(tensor.numpy(), _BITS, layer.axis)
    grids = {}
    for name, observed in ranges.items():
        width = WIDE_BITS if name in placement.wide else _BITS
        grids[name] = activation_grid(*choose_range(observed, "mse", width), width)
    onnx.save(export_model(job.model, job.layers, weights, placement, grids, job.target), path)
    return dict(placement.forms)
