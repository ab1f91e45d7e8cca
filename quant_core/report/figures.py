"""What the charts of a page show, as plain values; how they show it is the script's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from quant_core.spec import FLOAT_BITS, LayerSensitivity, ParetoFront, ParetoPoint, Report, SensitivityTable
from quant_core.spec.spectrum import SpectrumEntry, SpectrumTable

MOST_POINTS = 400
_DIGITS = 6

Figures = dict[str, Any]
"""JSON values: `front`, `layers` and `spectra`, as far as there are such charts."""


def report_figures(
    report: Report, table: SensitivityTable, front: ParetoFront, densities: SpectrumTable | None = None
) -> Figures:
    """Collect what the charts of a report show.

    Args:
        report: The report.
        table: The sensitivity table behind it.
        front: Every non-dominated plan.
        densities: Eigenvalue densities, if they were asked for.

    Returns:
        The curve of size against loss, and the layers.
    """
    rows = {row.name: row for row in table.layers}
    curve = {
        "name": report.model.name,
        "points": [
            {
                "x": point.bytes,
                "y": _number(point.predicted_loss),
                "error": _number(predicted_error(front.layers, point, rows)),
            }
            for point in thin_out(front.points, MOST_POINTS)
        ],
        "measured": [
            {
                "name": trial.name,
                "x": trial.bytes,
                "y": _number(trial.measured_loss),
                "error": _number(trial.stderr),
            }
            for trial in report.trials
        ],
    }
    found: Figures = {
        "front": {
            "curves": [curve],
            "budget": report.plan.budget_bytes,
            "choice": {"x": report.plan.predicted_bytes, "y": _number(report.plan.predicted_loss)},
        },
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "bits": layer.weight_bits,
                "loss": _number(layer.sensitivity),
                "lossError": _number(layer.sensitivity_stderr),
                "trace": _number(layer.trace),
                "traceError": _number(layer.trace_stderr),
                "reason": layer.reason,
            }
            for layer in report.layers
        ],
    }
    return found if densities is None else found | spectrum_figures(densities)


def spectrum_figures(densities: SpectrumTable) -> Figures:
    """Collect what the chart of eigenvalue densities shows.

    Args:
        densities: The densities.

    Returns:
        Those that can be drawn.
    """
    return {"spectra": [_rounded(entry) for entry in densities.spectra if has_density(entry)]}


def has_density(entry: SpectrumEntry) -> bool:
    """Tell whether there is a curve to draw.

    Args:
        entry: One Hessian's density.

    Returns:
        False where it is not finite, or all mass lies at one place.
    """
    return entry.smallest is not None and entry.largest is not None and entry.largest > entry.smallest


def predicted_error(
    layers: Sequence[str], point: ParetoPoint, rows: Mapping[str, LayerSensitivity]
) -> float | None:
    """Estimate how sure a plan's predicted loss is: its layers' errors, taken as independent, in quadrature.

    Args:
        layers: Names of the layers that the plan decides.
        point: The plan.
        rows: Name -> sensitivity.

    Returns:
        One standard error; None if that of a layer is not known.
    """
    if len(point.bits) != len(layers):
        return None
    total = 0.0
    for name, width in zip(layers, point.bits, strict=True):
        if width == FLOAT_BITS:
            continue
        error = (rows[name].sensitivity_stderr or {}).get(width) if name in rows else None
        if error is None:
            return None
        total += error**2
    return math.sqrt(total)


def thin_out(points: Sequence[ParetoPoint], most: int) -> list[ParetoPoint]:
    """Keep so many points at most, spread evenly and with both ends.

    Args:
        points: The points in order.
        most: How many to keep, at least two.

    Returns:
        The points kept, in order.
    """
    if len(points) <= most:
        return list(points)
    return [points[round(k * (len(points) - 1) / (most - 1))] for k in range(most)]


def _rounded(entry: SpectrumEntry) -> Figures:
    values = entry.model_dump(mode="json")
    for name in ("values", "weights"):
        values[name] = [[_number(value) for value in probe] for probe in values[name]]
    return values


def _number(value: float | None) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if value is not None and math.isfinite(value) else None
