"""`bitwright plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.budget_options import BUDGETS, EffectiveBits, Latency, Operations, PeakMemory
from bitwright.cli.choice_options import CHOICES
from bitwright.cli.layer_options import Exclude, Pin, read_pins
from bitwright.cli.service_options import Url


def plan(
    tables: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|JOB",
            help="Folder that `quantize` or `analyze` wrote, or its sensitivity.json; or the id of a job at a service.",
            show_default=False,
        ),
    ],
    *,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="Size of the file: a ratio of the float file (0.18, 18%) or bytes (2.5MB).",
            rich_help_panel=BUDGETS,
        ),
    ] = None,
    effective_bits: EffectiveBits = None,
    bops: Operations = None,
    peak_memory: PeakMemory = None,
    latency: Latency = None,
    allocation: Annotated[
        str | None,
        typer.Option(
            "--allocation",
            metavar="NAME",
            help="How bits are chosen: optimal, or for comparison hawq_v2. Default: optimal.",
            rich_help_panel=CHOICES,
        ),
    ] = None,
    pin: Pin = None,
    exclude: Exclude = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    url: Url = None,
) -> None:
    """Say at once which bits another budget would give, from the tables of an earlier run; no file is made."""
    from bitwright.cli import failures, local
    from bitwright.cli.plan_table import print_plan
    from bitwright.cli.remote import is_job, plan_at_service
    from bitwright.cli.tables import standard_output
    from quant_core.spec import PlanSpec

    given = {
        "size": size,
        "effective_bits": effective_bits,
        "bops": bops,
        "peak_memory": peak_memory,
        "latency": latency,
        "allocation": allocation,
    }
    request: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with failures.options():
        spec = PlanSpec.model_validate(request | {"pin": read_pins(pin or ()), "exclude": exclude or ()})
    with failures.options_of(spec):
        found = plan_at_service(str(tables), spec, url) if is_job(tables) else local.plan(tables, spec)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_plan(found, standard_output())
