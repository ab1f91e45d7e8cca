"""`bitwright plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.request_options import (
    EffectiveBits,
    Exclude,
    Latency,
    Operations,
    PeakMemory,
    Pin,
    read_pins,
)
from bitwright.cli.service_options import Url


def plan(
    tables: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|JOB",
            help="Folder of quantize or analyze, or its sensitivity.json with costs.json beside it; or the id of a job "
            "at a service.",
            show_default=False,
        ),
    ],
    *,
    size: Annotated[
        str | None, typer.Option("--size", help="Ratio of the float file (0.18) or bytes (2.5MB).")
    ] = None,
    effective_bits: EffectiveBits = None,
    bops: Operations = None,
    peak_memory: PeakMemory = None,
    latency: Latency = None,
    allocation: Annotated[str | None, typer.Option("--allocation", help="optimal or hawq_v2.")] = None,
    pin: Pin = None,
    exclude: Exclude = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    url: Url = None,
) -> None:
    """Make a plan from the tables that quantize or analyze wrote, at once: no model, no samples."""
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
    found = plan_at_service(str(tables), spec, url) if is_job(tables) else local.plan(tables, spec)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_plan(found, standard_output())
