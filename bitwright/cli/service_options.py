"""Options of the commands that speak to a service."""

from __future__ import annotations

from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Address of the service. Default: BITWRIGHT_URL, else http://127.0.0.1:8000. A key, where one is asked "
        "for, is read from BITWRIGHT_API_KEY.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", show_default=False)]
Webhook = Annotated[
    str | None,
    typer.Option(
        "--webhook",
        metavar="URL",
        help="Address that the service tells that the job has ended.",
        show_default=False,
    ),
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="WORD", help="A word to find it by; may be repeated.")
]
