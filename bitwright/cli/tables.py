"""Tables for people."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from bitwright.terminal import Terminal
from quant_core.spec import FLOAT_BITS, Report

_WIDE = 200
_UNITS = ("B", "KB", "MB", "GB")
_DISTURBED = 1.1
"""How far the ratio of two medians may lie from the median of ratios on a quiet machine."""


def standard_output() -> Console:
    """Give the console that results go to.

    Returns:
        One as wide as the terminal; wide enough for long names where output goes to a file or a program.
    """
    console = Terminal()
    return console if console.is_terminal else Terminal(width=_WIDE)


def print_summary(report: Report, console: Console) -> None:
    """Print the model before and after, and how many layers got how many bits.

    Args:
        report: What came out.
        console: Where to print.
    """
    model, metrics, latency = report.model, report.metrics, report.latency_ms
    heading = f"{model.name}, measured on {metrics.samples} samples held back from every decision"
    console.print(heading, highlight=False, markup=False)
    table = Table()
    for heading in ("", "float", "quantized", "change"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row(
        "file",
        size(model.float_bytes),
        size(model.quantized_bytes),
        f"{model.float_bytes / model.quantized_bytes:.2f}x smaller",
    )
    table.add_row(
        metrics.name,
        f"{metrics.float_:.4f}",
        f"{metrics.quantized:.4f}",
        f"{metrics.quantized - metrics.float_:+.4f}",
    )
    if metrics.interval is not None:
        change = metrics.change_interval
        table.add_row(
            "95 % interval",
            "",
            "{:.4f} to {:.4f}".format(*metrics.interval),
            "" if change is None else "{:+.4f} to {:+.4f}".format(*change),
        )
    table.add_row(
        "latency",
        f"{latency.float_:.3f} ms",
        f"{latency.quantized:.3f} ms",
        f"{latency.speedup:.2f}x the speed",
    )
    table.add_row("output SQNR", "", f"{metrics.sqnr_db:.1f} dB", "")
    console.print(table)
    if not 1 / _DISTURBED < latency.float_ / latency.quantized / latency.speedup < _DISTURBED:
        console.print(
            "Other work disturbed the times: the speed is the median of pairs of runs, one after the other.",
            highlight=False,
        )
    counts = Counter((layer.weight_bits, layer.narrow_bits or layer.weight_bits) for layer in report.layers)
    spent = ", ".join(f"{count} {_at(*bits)}" for bits, count in sorted(counts.items()))
    kept = sum(1 for layer in report.layers if layer.outliers)
    apart = f"; {kept} with outliers apart" if kept else ""
    coded = sum(1 for layer in report.layers if layer.trellis)
    apart += f"; {coded} with trellis codes" if coded else ""
    console.print(f"Layers by bits: {spent or 'none'}{apart}", highlight=False)
    for warning in report.warnings:
        console.print(f"Note: {warning}", style="yellow", highlight=False, markup=False)


def _at(bits: int, narrow: int) -> str:
    if bits == FLOAT_BITS:
        return "in float"
    return f"at {bits} bits" if bits == narrow else f"at {bits} and {narrow} bits"


def size(count: float) -> str:
    """Write a number of bytes for people.

    Args:
        count: Bytes.

    Returns:
        Three digits and a unit of powers of 1000.
    """
    unit = 0
    while count >= 999.5 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.3g} {_UNITS[unit]}"
