"""What comes from strangers is shown, and does not steer the terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from bitwright.cli import main
from bitwright.cli.failures import report
from bitwright.harmless import harmless
from bitwright.terminal import Terminal
from quant_core.errors import ModelError

HOSTILE = "a\x1b[31m\x1b]52;c;AAAA\x07\x9b2J\rb"
SHOWN = "a[31m]52;c;AAAA2Jb"
LETTERS = "层 é 🌲 \udc80"


def test_control_characters_are_left_out_and_all_else_stays() -> None:
    assert harmless(HOSTILE) == SHOWN
    assert harmless("层 é\t1\n2") == "层 é\t1\n2"


@pytest.mark.parametrize("color", [None, "truecolor"])
def test_a_terminal_prints_no_orders_but_its_own(color: str | None) -> None:
    out = io.StringIO()
    console = Terminal(file=out, width=60, color_system=color, force_terminal=color is not None)  # type: ignore[arg-type]
    table = Table("layer")
    table.add_row(HOSTILE)
    console.print(table, markup=False)
    console.print(f"Warning: {HOSTILE}", style="yellow", markup=False, highlight=False)
    assert out.getvalue().count(SHOWN) == 2
    assert "\x1b]" not in out.getvalue()
    assert "\x9b" not in out.getvalue()
    assert ("\x1b[33m" in out.getvalue()) is (color is not None)


def test_an_error_prints_no_orders(capsys: pytest.CaptureFixture[str]) -> None:
    report(ModelError(f"tensor {HOSTILE} is strange.", remedy="Export it again."))
    assert capsys.readouterr().err == f"Error: tensor {SHOWN} is strange. Export it again.\n"


def test_letters_that_an_encoding_lacks_are_written_in_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit):
        main(["--version"])
    print(json.dumps(LETTERS, ensure_ascii=False))
    sys.stdout.flush()
    assert written.getvalue().endswith(b'"\\u5c42 \\u00e9 \\ud83c\\udf32 \\udc80"\n')
    assert json.loads(written.getvalue().splitlines()[-1]) == LETTERS


@pytest.mark.parametrize("command", [["--version"], ["admin", "settings"]])
def test_a_command_that_nobody_reads_ends_quietly(command: list[str], tmp_path: Path) -> None:
    told, unread = os.pipe()
    os.close(told)
    ended = subprocess.run(
        [sys.executable, "-m", "bitwright", *command],
        cwd=tmp_path,
        stdout=unread,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(unread)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("command", [["inspect", "missing.onnx"], ["no-such-command"]])
def test_an_error_that_nobody_reads_keeps_its_exit_code(command: list[str], tmp_path: Path) -> None:
    told, unread = os.pipe()
    os.close(told)
    ended = subprocess.run(
        [sys.executable, "-m", "bitwright", *command], cwd=tmp_path, stderr=unread, check=False
    )
    os.close(unread)
    assert ended.returncode == 2
