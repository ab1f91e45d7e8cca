"""The command line: `bitwright quantize`, `analyze`, `inspect`, `evaluate`, `serve`."""

from __future__ import annotations

import io
import sys

from bitwright.cli.app import app
from bitwright.cli.failures import INTERRUPTED, exit_code, report


def main(arguments: list[str] | None = None) -> None:
    """Run one command and end the process: 0 done, 1 a fault of ours, 2 something to correct, 130 interrupted.

    Args:
        arguments: The command line; by default that of the process.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold letters that its encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="bitwright")
    except BaseException as error:
        report(error)
        sys.exit(exit_code(error))
    if code == INTERRUPTED:
        print("Stopped.", file=sys.stderr)
    sys.exit(code or 0)
