"""Eigenvalue densities as one HTML page that needs no network."""

from __future__ import annotations

from typing import Any

from quant_core.report.figures import has_density, spectrum_figures
from quant_core.report.page import render_page
from quant_core.spec.spectrum import SpectrumTable

Row = tuple[str, ...]


def render_spectrum(title: str, table: SpectrumTable) -> str:
    """Write densities as one self-contained page, as careful with names as the report.

    Args:
        title: Name of the model.
        table: The densities.

    Returns:
        HTML.
    """
    figures = spectrum_figures(table)
    return render_page("spectrum.html", figures, title=title, density=density_section(table))


def density_section(table: SpectrumTable) -> dict[str, Any]:
    """Collect what the part of a page that shows densities names.

    Args:
        table: The densities.

    Returns:
        The table, names that a curve can be chosen by, and rows of figures.
    """
    return {
        "table": table,
        "names": [entry.name for entry in table.spectra if has_density(entry)],
        "rows": spectrum_rows(table),
    }


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
