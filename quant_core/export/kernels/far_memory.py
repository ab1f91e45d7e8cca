"""What a batch takes more for each sample than one sample alone: large tensors then come from memory, not from a cache.

Fitted to the first kernels of MobileNetV2 at 224 x 224, whose float numbers of 8 samples take 13 MB a tensor, one
thread of an AMD EPYC with 1 MB of cache a core, which takes 0.55 of all times that are estimated there: with two
convolutions in float the file took 10 % longer than in integers, and with one sample as long.
"""

from __future__ import annotations

from quant_core.export.kernels.placed_run import PlacedRun

SAMPLES = 8
"""Samples of a batch."""
NEAR_BYTES = 2**21
"""The largest tensor that a core still finds in its caches."""
FAR_FLOAT, FAR_CODE = 12, 6
"""Reading or writing one element of a larger tensor, in products in float."""

_FLOAT_BYTES = 4


def far_time(run: PlacedRun) -> float:
    """Estimate what one of `SAMPLES` samples takes beside what `estimated_time` counts of one alone.

    Args:
        run: The file.

    Returns:
        Time for one sample in products in float; 0 where all tensors are small.
    """
    elements, time = run.elements, 0.0
    for node in run.model.graph:
        if run.takes_nothing(node) or str(node.name) in run.placement.absorbed or run.blocks.is_fused(node):
            continue
        moved = _moved_float if run.flow.runs_in_float(node) else _moved_code
        values = (value for value in (*node.inputs, *node.outputs) if value is not None)
        time += sum(moved(elements.get(str(value.name), 0)) for value in values if value.const_value is None)
    for name, kind in run.passes:
        size = elements.get(name, 0)
        time += _moved_float(size) + (_moved_code(size) if kind == "border" else _moved_float(size))
    return time


def _moved_float(size: float) -> float:
    return FAR_FLOAT * size if SAMPLES * _FLOAT_BYTES * size > NEAR_BYTES else 0.0


def _moved_code(size: float) -> float:
    return FAR_CODE * size if SAMPLES * size > NEAR_BYTES else 0.0
