"""Tables for people."""

from __future__ import annotations

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from quant_core.spec import Report, format_bits
from quant_core.spec.preflight import Preflight

_WIDE = 200
_UNITS = ("B", "KB", "MB", "GB")


def standard_output() -> Console:
    """Give the console that results go to.

    Returns:
        One as wide as the terminal; wide enough for long names where output goes to a file or a program.
    """
    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)


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
    table.add_row(
        "latency",
        f"{latency.float_:.3f} ms",
        f"{latency.quantized:.3f} ms",
        f"{latency.speedup:.2f}x the speed",
    )
    table.add_row("output SQNR", "", f"{metrics.sqnr_db:.1f} dB", "")
    console.print(table)
    counts: dict[int, int] = {}
    for layer in report.layers:
        counts[layer.weight_bits] = counts.get(layer.weight_bits, 0) + 1
    spent = ", ".join(f"{count} at {format_bits(bits)}" for bits, count in sorted(counts.items()))
    console.print(f"Layers by bits: {spent or 'none'}", highlight=False)
    for warning in report.warnings:
        console.print(f"Warning: {warning}", style="yellow", highlight=False, markup=False)


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


def print_preflight(preflight: Preflight, console: Console) -> None:
    """Print what can be quantized, what cannot, and what a budget can reach.

    Args:
        preflight: What was found.
        console: Where to print.
    """
    console.print(
        f"{preflight.name}: {size(preflight.float_bytes)}, opset {preflight.opset}, "
        f"{len(preflight.layers)} layers with {preflight.parameters:,} weights",
        highlight=False,
        markup=False,
    )
    for kind, tensors in (("input", preflight.inputs), ("output", preflight.outputs)):
        for tensor in tensors:
            shape = (
                "of unknown shape" if tensor.shape is None else " x ".join(map(str, tensor.shape)) or "scalar"
            )
            console.print(f"{kind} {tensor.name}: {tensor.type}, {shape}", highlight=False, markup=False)
    layers = Table()
    for heading in ("layer", "op", "shape", "parameters", "MACs", "uses"):
        justify: JustifyMethod = "left" if heading in {"layer", "op", "shape"} else "right"
        layers.add_column(heading, justify=justify, overflow="fold")
    for layer in preflight.layers:
        macs = "?" if layer.macs is None else f"{layer.macs:,}"
        shape = "x".join(map(str, layer.shape))
        layers.add_row(escape(layer.name), layer.op, shape, f"{layer.parameters:,}", macs, str(layer.uses))
    console.print(layers)
    if preflight.float_weights:
        stay = Table(title="Stay float", title_justify="left")
        stay.add_column("weight", overflow="fold")
        stay.add_column("parameters", justify="right")
        stay.add_column("why")
        for weight in preflight.float_weights:
            stay.add_row(escape(weight.name), f"{weight.parameters:,}", escape(weight.reason))
        console.print(stay)
    if preflight.unsupported_operators:
        names = ", ".join(preflight.unsupported_operators)
        console.print(
            f"Not supported, so a job would refuse this model: {names}", highlight=False, markup=False
        )
    else:
        console.print("Every operator is supported.", highlight=False)
    ratio = preflight.smallest_ratio + 0.0005
    # Above 1 a size counts bytes.
    option = f"{ratio:.3f}" if ratio <= 1 else f"{preflight.smallest_bytes}B"
    console.print(
        f"Smallest reachable size: about {size(preflight.smallest_bytes)}, "
        f"ratio {preflight.smallest_ratio:.3f} (--size {option})",
        highlight=False,
        markup=False,
    )
