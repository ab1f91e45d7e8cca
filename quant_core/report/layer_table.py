"""The table of all layers, and what is counted over them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from quant_core.codes.outliers import PAIR_BITS
from quant_core.report.numbers import format_bytes, format_count, format_loss, format_share
from quant_core.spec import FLOAT_BITS, LayerReport, Report, format_bits


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: Its heading.
        number: Whether it holds numbers.
    """

    title: str
    number: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Attributes:
        text: What it shows.
        value: What it is sorted by, if not its text.
        kind: CSS class.
        chip: Bit-width whose colour stands before the text.
        detail: A second, smaller line.
    """

    text: str
    value: float | None = None
    kind: str = ""
    chip: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class BitShare:
    """How much of the model has one bit-width.

    Attributes:
        label: The bit-width.
        bits: The same as a number.
        layers: How many layers.
        weights: Share of all weights.
    """

    label: str
    bits: int
    layers: str
    weights: str


COLUMNS = (
    Column("#", number=True),
    Column("Layer"),
    Column("Bits", number=True),
    Column("Weights", number=True),
    Column("MACs", number=True),
    Column("Bytes", number=True),
    Column("Loss increase", number=True),
    Column("SQNR", number=True),
    Column("Trace", number=True),
    Column("Runs as"),
    Column("Reason"),
)


def layer_rows(report: Report) -> list[list[Cell]]:
    """Fill the table.

    Args:
        report: The report.

    Returns:
        One row a layer with a cell for each of `COLUMNS`.
    """
    return [_row(number, layer) for number, layer in enumerate(report.layers, start=1)]


def bit_shares(report: Report) -> list[BitShare]:
    """Count layers and weights by bit-width.

    Args:
        report: The report.

    Returns:
        One entry for each bit-width in use, fewest bits first; layers whose channels have two widths count at both.
    """
    layers: Counter[int] = Counter()
    weights: Counter[int] = Counter()
    for layer in report.layers:
        narrow = round(layer.narrow_share * layer.parameters)
        for bits, count in ((layer.weight_bits, layer.parameters - narrow), (layer.narrow_bits, narrow)):
            if bits is not None:
                layers[bits] += 1
                weights[bits] += count
    total = max(weights.total(), 1)
    return [
        BitShare(
            label="float" if bits == FLOAT_BITS else f"{bits} bits",
            bits=bits,
            layers=f"{layers[bits]} layer{'' if layers[bits] == 1 else 's'}",
            weights=format_share(weights[bits] / total, 0 if weights[bits] >= 0.1 * total else 1),
        )
        for bits in sorted(layers)
    ]


def kernels_note(report: Report) -> str:
    """Count the kernels that run the layers.

    Args:
        report: The report.

    Returns:
        One sentence.
    """
    kernels = Counter(layer.kernel for layer in report.layers)
    counted = ", ".join(f"{kernel} {count}" for kernel, count in kernels.most_common())
    return (
        f"The operators that run these layers in onnxruntime's optimized graph: {counted}." if counted else ""
    )


def _row(number: int, layer: LayerReport) -> list[Cell]:
    return [
        Cell(str(number), number, "number"),
        Cell(layer.name, kind="text", detail=layer.op),
        _bits(layer),
        Cell(format_count(layer.parameters), layer.parameters, "number"),
        Cell(format_count(layer.macs) if layer.macs else "–", layer.macs, "number"),
        Cell(format_bytes(layer.bytes), layer.bytes, "number"),
        Cell(format_loss(layer.sensitivity, layer.sensitivity_stderr), layer.sensitivity, "number"),
        _noise(layer),
        Cell(format_loss(layer.trace, layer.trace_stderr), layer.trace, "number"),
        Cell(layer.kernel, detail=f"{layer.form.replace('_', ' ')}, input {_input(layer)}"),
        Cell(layer.reason, kind="text reason"),
    ]


def _bits(layer: LayerReport) -> Cell:
    stored = format_bytes(math.ceil(layer.outliers * PAIR_BITS / 8))
    kept = f"{layer.outliers} outliers, {stored}" if layer.outliers else "trellis" if layer.trellis else ""
    if layer.narrow_bits is not None:
        kept = f"{layer.narrow_bits} for {format_share(layer.narrow_share, 0)} of the channels"
    return Cell(format_bits(layer.weight_bits), layer.weight_bits, "number", layer.weight_bits, detail=kept)


def _noise(layer: LayerReport) -> Cell:
    """Error that has gathered up to the layer's output, and below it what enters in the layer itself."""
    if layer.sqnr_db is None:
        return Cell("–", kind="number")
    own = "" if layer.own_sqnr_db is None else f"alone {layer.own_sqnr_db:.1f} dB"
    return Cell(f"{layer.sqnr_db:.1f} dB", layer.sqnr_db, "number", detail=own)


def _input(layer: LayerReport) -> str:
    return "float" if layer.activation_bits == FLOAT_BITS else f"{layer.activation_bits} bits"
