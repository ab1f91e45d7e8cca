"""What `bitwright inspect` prints for people."""

from __future__ import annotations

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from bitwright.cli.tables import size
from quant_core.spec.preflight import Preflight, PreflightBatch, PreflightLayer

_UNKNOWN = "?"
_SMALL_NET = 0.15
"""Above this ratio it is not weights of two bits that fill the smallest file, but what integers need beside them."""
_BELOW = ", with all layers in integers: a job that leaves small layers in float may go below it"


def print_preflight(preflight: Preflight, console: Console) -> None:
    """Print what can be quantized, what cannot, and what a budget can reach.

    Args:
        preflight: What was found.
        console: Where to print.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    raised = (
        f" (raised to {preflight.normalised_opset})" if preflight.opset != preflight.normalised_opset else ""
    )
    say(
        f"{preflight.name}: {size(preflight.float_bytes)}, opset {preflight.opset}{raised}, "
        f"{len(preflight.layers)} layers with {preflight.parameters:,} weights"
    )
    for kind, tensors in (("input", preflight.inputs), ("output", preflight.outputs)):
        for tensor in tensors:
            shape = (
                "of unknown shape" if tensor.shape is None else " x ".join(map(str, tensor.shape)) or "scalar"
            )
            say(f"{kind} {tensor.name}: {tensor.type}, {shape}")
    say(f"batch: {_batch(preflight.batch)}")
    if preflight.computed_in_float32:
        say(f"Layers in {' and '.join(preflight.computed_in_float32)} are computed and quantized in float32.")
    if preflight.layers:
        console.print(_layers(preflight.layers))
    if preflight.float_weights:
        stay = _table(("weight", "shape", "parameters", "why"), title="Stay float")
        for weight in preflight.float_weights:
            shape = "x".join(map(str, weight.shape))
            stay.add_row(escape(weight.name), shape, f"{weight.parameters:,}", escape(weight.reason))
        console.print(stay)
    if preflight.quantized_parts:
        parts = _table(("node", "op", "form", "bits", "weights"), title="Quantized already")
        for part in preflight.quantized_parts:
            bits = "" if part.bits is None else str(part.bits)
            parts.add_row(escape(part.name), part.op, part.form, bits, escape(", ".join(part.weights)))
        console.print(parts)
        say("A job refuses such a model unless it is asked to keep these parts: --keep-quantized.")
    if preflight.unsupported_operators:
        names = ", ".join(preflight.unsupported_operators)
        say(f"Not supported, so a job would refuse this model: {names}")
    else:
        say("Every operator is supported.")
    if not preflight.layers:
        say("No layer can be quantized, so a job would refuse this model.")
        return
    ratio = preflight.smallest_ratio + 0.0005
    # Above 1 a size counts bytes.
    option = f"{ratio:.3f}" if ratio <= 1 else f"{preflight.smallest_bytes}B"
    say(
        f"Smallest reachable size: about {size(preflight.smallest_bytes)}, "
        f"ratio {preflight.smallest_ratio:.3f} (--size {option})"
        + (_BELOW if preflight.smallest_ratio > _SMALL_NET else "")
    )


def _batch(batch: PreflightBatch) -> str:
    why = f": {batch.reason}" if batch.reason else ""
    match batch.handling:
        case "free":
            return "any number of samples a run"
        case "made free":
            return "fixed at 1; samples are analysed in batches by a rewritten copy"
        case "one by one":
            return f"fixed at 1; samples are run one by one, which is slow{why}"
        case "fixed":
            return f"fixed at {batch.size}"
        case _:
            return f"unclear{why}"


def _layers(layers: tuple[PreflightLayer, ...]) -> Table:
    table = _table(("layer", "op", "weight", "shape", "parameters", "MACs", "reads", "writes", "notes"))
    for layer in layers:
        table.add_row(
            escape(layer.name),
            layer.op,
            escape(layer.weight),
            "x".join(map(str, layer.shape)),
            f"{layer.parameters:,}",
            _count(layer.macs),
            _count(layer.input_elements),
            _count(layer.output_elements),
            escape(", ".join(_notes(layer))),
        )
    return table


def _notes(layer: PreflightLayer) -> list[str]:
    notes = [word for word, told in (("first", layer.first), ("last", layer.last)) if told]
    if layer.uses > 1:
        notes.append(f"tied: {layer.uses} uses")
    if layer.siblings:
        notes.append(f"shares its input with {', '.join(layer.siblings)}")
    return notes


def _count(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:,}"


def _table(headings: tuple[str, ...], title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        right = heading in {"parameters", "MACs", "reads", "writes", "bits"}
        justify: JustifyMethod = "right" if right else "left"
        table.add_column(heading, justify=justify, overflow="fold")
    return table
