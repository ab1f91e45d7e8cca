"""The report as one HTML page that needs no network, and as JSON."""

from __future__ import annotations

from pathlib import Path

from quant_core.report.choice_table import choice_table
from quant_core.report.figures import predicted_error, report_figures, thin_out
from quant_core.report.graph_tables import graph_tables
from quant_core.report.headline import result_rows, simulation_facts, summary
from quant_core.report.layer_table import COLUMNS, bit_shares, kernels_note, layer_rows
from quant_core.report.numbers import format_bytes, format_loss, format_share
from quant_core.report.page import render_page
from quant_core.report.provenance import making_pairs, request_pairs, stage_bars
from quant_core.report.spectrum_page import density_section
from quant_core.report.trial_tables import trial_tables
from quant_core.spec import ParetoFront, Report, SensitivityTable
from quant_core.spec.spectrum import SpectrumTable

_LISTED_POINTS = 16


def render_html(
    report: Report, table: SensitivityTable, front: ParetoFront, densities: SpectrumTable | None = None
) -> str:
    """Write the report as one self-contained page.

    Args:
        report: The report.
        table: The sensitivity table behind it.
        front: Every non-dominated plan.
        densities: Eigenvalue densities, if they were asked for.

    Returns:
        HTML.
    """
    return render_page(
        "report.html",
        report_figures(report, table, front, densities),
        report=report,
        summary=summary(report),
        result_rows=result_rows(report),
        bit_shares=bit_shares(report),
        traced=any(layer.trace is not None for layer in report.layers),
        layers_note=_layers_note(report),
        choice=choice_table(report, table),
        choice_note=_choice_note(table),
        front_note=_front_note(report, front),
        front_label=_front_label(front),
        density=None if densities is None else density_section(densities),
        front_rows=_front_rows(report, table, front),
        tables=[*trial_tables(report), *graph_tables(report)],
        simulation_facts=simulation_facts(report),
        columns=COLUMNS,
        layer_rows=layer_rows(report),
        kernels_note=kernels_note(report),
        request_pairs=request_pairs(report),
        making_pairs=making_pairs(report, table),
        stages=stage_bars(report),
    )


def write_report(
    report: Report,
    table: SensitivityTable,
    front: ParetoFront,
    folder: Path,
    densities: SpectrumTable | None = None,
) -> tuple[Path, Path]:
    """Write `report.json` and `report.html`.

    Args:
        report: The report.
        table: The sensitivity table behind it.
        front: Every non-dominated plan.
        folder: An existing folder.
        densities: Eigenvalue densities, if they were asked for.

    Returns:
        Paths of the JSON file and of the page.
    """
    json_path, html_path = folder / "report.json", folder / "report.html"
    json_path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    html_path.write_text(render_html(report, table, front, densities), encoding="utf-8")
    return json_path, html_path


def _layers_note(report: Report) -> str:
    below = any(layer.sensitivity < 0 for layer in report.layers)
    return (
        "From input to output. Whiskers are one standard error; scales are logarithmic"
        + (", and linear around zero where estimates fall below it" if below else "")
        + ". Point at a layer to see why it has its bits."
    )


def _choice_note(table: SensitivityTable) -> str:
    return (
        f"Expected increase of the loss ({table.loss}) by layer and bit-width, from {table.samples} samples. "
        "The stronger the colour, the more it costs; the frame is the choice."
    )


def _front_note(report: Report, front: ParetoFront) -> str:
    return (
        f"Each of the {len(front.points):,} plans on this line is the best for its size. "
        f"The choice has a predicted loss increase of {report.plan.predicted_loss:.3g}."
    )


def _front_label(front: ParetoFront) -> str:
    sizes = [point.bytes for point in front.points] or [0]
    return (
        f"Predicted loss of {len(front.points)} plans from {format_bytes(sizes[0])} to {format_bytes(sizes[-1])}; "
        "the table below has figures"
    )


def _front_rows(report: Report, table: SensitivityTable, front: ParetoFront) -> list[tuple[str, ...]]:
    rows = {row.name: row for row in table.layers}
    return [
        (
            format_bytes(point.bytes),
            format_share(point.bytes / report.model.float_bytes, 1),
            format_loss(point.predicted_loss, predicted_error(front.layers, point, rows)),
        )
        for point in thin_out(front.points, _LISTED_POINTS)
    ]
