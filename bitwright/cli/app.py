"""The commands by name; each imports what it needs when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from bitwright.cli.admin import admin
from bitwright.cli.analyze import analyze
from bitwright.cli.debug import debug
from bitwright.cli.evaluate import evaluate
from bitwright.cli.help_pages import SectionedCommand, SectionedGroup
from bitwright.cli.inspect import inspect
from bitwright.cli.plan import plan
from bitwright.cli.profile import profile
from bitwright.cli.quantize import quantize
from bitwright.cli.remote import cancel, delete, download, jobs, submit, wait
from bitwright.cli.serve import serve

app = typer.Typer(
    cls=SectionedGroup,
    help="Make trained ONNX models smaller and faster: each layer gets as few bits as it can bear. "
    "`bitwright COMMAND --help` explains a command.",
    epilog="bitwright inspect model.onnx\n"
    "bitwright quantize model.onnx --data samples.npz --size 0.18 --out result",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
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


_QUANTIZE = "Make a model smaller (on this machine, with the engine)"
_UNDERSTAND = "Look at a model or a result"
_SERVICE = "Have it done by a service"
_RUN = "Run a service"
_SAMPLES = "--data samples.npz"
_COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    (_QUANTIZE, quantize, f"bitwright quantize model.onnx {_SAMPLES} --size 0.18 --out result"),
    (_QUANTIZE, plan, "bitwright plan result --size 0.2 --pin 'fc*=8'"),
    (_UNDERSTAND, inspect, "bitwright inspect model.onnx"),
    (_UNDERSTAND, evaluate, f"bitwright evaluate result/model.onnx {_SAMPLES}"),
    (_UNDERSTAND, debug, f"bitwright debug model.onnx result {_SAMPLES}"),
    (_UNDERSTAND, analyze, f"bitwright analyze model.onnx {_SAMPLES} --out sensitivity.json"),
    (
        _UNDERSTAND,
        profile,
        f"bitwright profile model.onnx {_SAMPLES} --out latency.json",
    ),
    (
        _SERVICE,
        submit,
        f"export BITWRIGHT_URL=http://127.0.0.1:8000\nbitwright submit model.onnx {_SAMPLES} --size 0.18 --wait",
    ),
    (_SERVICE, jobs, "bitwright jobs --state succeeded --text resnet"),
    (_SERVICE, wait, "bitwright wait JOB"),
    (_SERVICE, download, "bitwright download JOB --out result"),
    (_SERVICE, cancel, "bitwright cancel JOB"),
    (_SERVICE, delete, "bitwright delete JOB"),
    (_RUN, serve, "bitwright serve --port 8000 --data-dir data"),
)
for _heading, _command, _example in _COMMANDS:
    app.command(cls=SectionedCommand, rich_help_panel=_heading, epilog=_example)(_command)
app.add_typer(admin, name="admin", rich_help_panel=_RUN)
