"""The command line: `bitwright quantize`, `analyze`, `inspect`, `evaluate`, `serve`."""

from __future__ import annotations

import codecs
import io
import signal
import sys
from contextlib import suppress

_ESCAPED = "bitwright.escaped"


def main(arguments: list[str] | None = None) -> None:
    """Run one command and end the process with the exit code that `exit_code` tells of.

    Args:
        arguments: The command line; by default that of the process.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold letters that its encoding lacks
        codecs.register_error(_ESCAPED, _escape)
        sys.stdout.reconfigure(errors=_ESCAPED)
    try:  # loading takes some tenths of a second, in which Ctrl-C may come as well
        from bitwright.cli.app import app
        from bitwright.cli.failures import INTERRUPTED, exit_code, report
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="bitwright")
    except BaseException as error:
        with suppress(BrokenPipeError):  # where nobody reads, the exit code still tells
            report(error)
        sys.exit(exit_code(error))
    if code == INTERRUPTED:
        print("Stopped.", file=sys.stderr)
    sys.exit(code or 0)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Write letters as JSON does, whose escapes are fewer than Python's."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(rf"\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)), error.end
