"""The commands by name; each imports what it needs when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from bitwright.cli.admin import admin
from bitwright.cli.analyze import analyze
from bitwright.cli.debug import debug
from bitwright.cli.evaluate import evaluate
from bitwright.cli.inspect import inspect
from bitwright.cli.plan import plan
from bitwright.cli.profile import profile
from bitwright.cli.quantize import quantize
from bitwright.cli.remote import cancel, download, jobs, submit, wait
from bitwright.cli.serve import serve

app = typer.Typer(
    help="Make ONNX models smaller with mixed-precision quantization, and see why each layer got its bits.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"bitwright {version('bitwright')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


_COMMANDS: tuple[Callable[..., None], ...] = (
    *(quantize, analyze, plan, profile, inspect, evaluate, debug, serve),
    *(submit, jobs, wait, cancel, download),
)
for command in _COMMANDS:
    app.command()(command)
app.add_typer(admin, name="admin")
