"""Eigenvalue densities as one HTML page that needs no network."""

from __future__ import annotations

from quant_core.report.page import render_page
from quant_core.spec.spectrum import SpectrumEntry, SpectrumTable

Row = tuple[str, ...]


def render_spectrum(title: str, table: SpectrumTable) -> str:
    """Write densities as one self-contained page, as careful with names as the report.

    Args:
        title: Name of the model.
        table: The densities.

    Returns:
        HTML.
    """
    drawn = [entry for entry in table.spectra if has_density(entry)]
    return render_page(
        "spectrum.html",
        {"spectra": [entry.model_dump(mode="json") for entry in drawn]},
        title=title,
        table=table,
        names=[entry.name for entry in drawn],
        rows=spectrum_rows(table),
    )


def has_density(entry: SpectrumEntry) -> bool:
    """Tell whether there is a curve to draw.

    Args:
        entry: One Hessian's density.

    Returns:
        False where it is not finite, or all mass lies at one place.
    """
    return entry.smallest is not None and entry.largest is not None and entry.largest > entry.smallest


def spectrum_rows(table: SpectrumTable) -> list[Row]:
    """List what is known of every Hessian.

    Args:
        table: The densities.

    Returns:
        Name, parameters, smallest and largest eigenvalue, trace, Frobenius norm.
    """
    return [
        (
            one.name,
            f"{one.parameters:,}",
            *map(_number, (one.smallest, one.largest, one.trace, one.frobenius)),
        )
        for one in table.spectra
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
