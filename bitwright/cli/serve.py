"""`bitwright serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            "--host", metavar="HOST", help="Address to listen on. Default: 127.0.0.1.", show_default=False
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="N",
            min=0,
            max=65535,
            help="Port; 0 takes a free one. Default: 8000.",
            show_default=False,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", metavar="DIR", help="Folder of jobs and results. Default: data.", show_default=False
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            "--devices",
            metavar="LIST",
            help="auto, or a list such as cuda:0,cuda:1; one job at a time on each. Default: auto.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Start the service and its page; `bitwright admin settings` lists what the environment can set."""
    from bitwright.cli import failures
    from bitwright.cli.local import engine

    with engine():
        from app import main
    options: dict[str, Any] = {"host": host, "port": port, "data_dir": data_dir, "devices": devices}
    with failures.options(settings=True):
        settings = main.read_settings({name: value for name, value in options.items() if value is not None})
    main.serve(settings)
