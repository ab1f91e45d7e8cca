"""`bitwright profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.cli.code_options import BlockSize
from bitwright.cli.request_options import Data, Model


def profile(
    model: Model,
    data: Data,
    *,
    target: Annotated[
        str, typer.Option("--target", metavar="NAME", help="The runtime; only ort-cpu can be timed.")
    ] = "ort-cpu",
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the table goes.")] = Path(
        "latency.json"
    ),
    activation_bits: Annotated[
        str | None,
        typer.Option(
            "--activation-bits", metavar="B", help="Bits of activations: 8, 16 or float. Default: 8."
        ),
    ] = None,
    block_size: BlockSize = None,
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=5, max=10000, help="Timed runs of each form.")
    ] = 100,
) -> None:
    """Measure how long each layer of MODEL.onnx runs in float and in integers, for `quantize --latency`."""
    from rich.table import Table

    from bitwright.cli import failures, local
    from bitwright.cli.tables import standard_output
    from quant_core.spec import QuantizeSpec

    asked: dict[str, str | int | None] = {
        "target": target,
        "activation_bits": activation_bits,
        "block_size": block_size,
    }
    request = {name: value for name, value in asked.items() if value}
    with failures.options():
        spec = QuantizeSpec.model_validate(request)
    if out.exists() and out.suffix != ".json":
        raise failures.OptionError(f"--out: {out} is there already and no .json file; name another one")
    with failures.options_of(spec):
        found = local.profile(model, data, spec, runs)
    out.write_text(found.model_dump_json(indent=1))
    if found.disturbed:
        typer.echo(
            "Warning: the layers add up to more than twice the whole run, so other work kept the machine busy. "
            "Measure again when it is idle.",
            err=True,
        )
    table = Table("layer", "form")
    more = [(file.form, file.bits) for file in found.others]
    names = [f"{form.replace('_', ' ')}{f' {bits}' if bits else ''} ms" for form, bits in more]
    for heading in (
        "float ms",
        "±",
        "integer ms",
        "±",
        *(heading for name in names for heading in (name, "±")),
    ):
        table.add_column(heading, justify="right")
    for row in found.layers:
        numbers = (row.float_ms, row.float_spread, row.integer_ms, row.integer_spread)
        timed = {(other.form, other.bits): (other.ms, other.spread) for other in row.others}
        cells = [f"{number:.4f}" for number in numbers]
        cells += [
            cell
            for key in more
            for cell in ([f"{number:.4f}" for number in timed[key]] if key in timed else ["", ""])
        ]
        table.add_row(row.name, row.form, *cells)
    console = standard_output()
    console.print(table, markup=False)
    layers = sum(row.float_ms for row in found.layers), sum(row.integer_ms for row in found.layers)
    console.print(
        f"Float: layers {layers[0]:.3f} ms + rest {found.float_rest:.3f} ms; whole run {found.float_total:.3f} ms\n"
        f"Integer: layers {layers[1]:.3f} ms + rest {found.integer_rest:.3f} ms; "
        f"whole run {found.integer_total:.3f} ms (packed 2 to 6 bits run on the same kernels)\n"
        + "".join(
            f"{name.removesuffix(' ms').capitalize()}: rest {file.rest:.3f} ms; whole run {file.total:.3f} ms\n"
            for name, file in zip(names, found.others, strict=True)
        )
        + f"Written to {out}; a run with the profiler on takes a little longer than one without.",
        highlight=False,
        markup=False,
    )
