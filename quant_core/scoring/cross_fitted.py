"""One table from those of several folds, each of samples of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from quant_core.spec import LayerSensitivity, SensitivityTable


def cross_fitted(tables: Sequence[SensitivityTable]) -> SensitivityTable:
    """Average tables over their samples.

    Args:
        tables: Of the same layers and widths, by the same method, each from other samples.

    Returns:
        Their means, with standard errors as of independent samples; a width that lacks a score in one has none.
    """
    first, counts = tables[0], [table.samples for table in tables]
    if len(tables) == 1:
        return first
    return first.model_copy(
        update={
            "samples": sum(counts),
            "probes": sum(table.probes for table in tables),
            "stopped": f"{len(tables)} folds: {first.stopped}",
            "layers": tuple(
                _averaged(rows, counts) for rows in zip(*(table.layers for table in tables), strict=True)
            ),
        }
    )


def _averaged(rows: Sequence[LayerSensitivity], counts: Sequence[int]) -> LayerSensitivity:
    errors = [row.sensitivity_stderr for row in rows]
    return rows[0].model_copy(
        update={
            "trace": _mean([row.trace for row in rows], counts),
            "trace_stderr": _error([row.trace_stderr for row in rows], counts),
            "perturbation": _each([row.perturbation for row in rows], counts, _mean),
            "sensitivity": _each([row.sensitivity for row in rows], counts, _mean),
            "sensitivity_stderr": _each([each or {} for each in errors], counts, _error),
        }
    )


def _each(
    found: Sequence[Mapping[int, float]], counts: Sequence[int], of: Callable[..., float | None]
) -> dict[int, float]:
    common = [bits for bits in found[0] if all(bits in each for each in found)]
    values = {bits: of([each[bits] for each in found], counts) for bits in common}
    return {bits: value for bits, value in values.items() if value is not None}


def _mean(values: Sequence[float | None], counts: Sequence[int]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return sum(value * count for value, count in zip(known, counts, strict=True)) / sum(counts)


def _error(values: Sequence[float | None], counts: Sequence[int]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return math.hypot(*(value * count for value, count in zip(known, counts, strict=True))) / sum(counts)
