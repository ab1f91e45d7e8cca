"""The sensitivity table for people."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from quant_core.spec import LayerSensitivity, SensitivityTable, format_bits

_NUMBERS: dict[str, Callable[[LayerSensitivity], str]] = {
    "trace": lambda layer: _with_error(layer.trace, layer.trace_stderr),
    "eigenvalue": lambda layer: _with_error(layer.eigenvalue, None),
    "activation trace": lambda layer: _with_error(layer.activation_trace, layer.activation_trace_stderr),
    "orthogonality": lambda layer: _with_error(layer.orthogonality, None),
}


def print_sensitivities(table: SensitivityTable, console: Console) -> None:
    """Print what each layer loses at each bit-width.

    Args:
        table: The table.
        console: Where to print.
    """
    console.print(
        f"{table.method} on {table.samples} samples, loss {table.loss}"
        + (f", {table.probes} probes" if table.probes else "")
        + (f"; {table.stopped}" if table.stopped else ""),
        highlight=False,
        markup=False,
    )
    if table.loss_guessed:
        console.print(f"Loss chosen because {table.loss_guessed}.", highlight=False, markup=False)
    drawn = Table(caption="Expected loss increase by bits of the weight; ± is one standard error.")
    drawn.add_column("layer", overflow="fold")
    drawn.add_column("parameters", justify="right")
    numbers = [name for name, text in _NUMBERS.items() if any(text(layer) for layer in table.layers)]
    bits = sorted({b for layer in table.layers for b in layer.sensitivity})
    for heading in (*numbers, *(f"{format_bits(b)} bits" if b < 32 else "float" for b in bits)):
        drawn.add_column(heading, justify="right")
    for layer in table.layers:
        errors = layer.sensitivity_stderr or {}
        drawn.add_row(
            escape(layer.name),
            f"{layer.parameters:,}",
            *(_NUMBERS[name](layer) for name in numbers),
            *(_with_error(layer.sensitivity.get(b), errors.get(b)) for b in bits),
        )
    console.print(drawn)
    for warning in table.warnings:
        console.print(f"Warning: {warning}", style="yellow", highlight=False, markup=False)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g} ± {error:.1g}" if error else f"{value:.3g}"
