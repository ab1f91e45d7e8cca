"""How a failed command ends: one clear message on standard error and an exit code that scripts can read."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

import typer
from pydantic import BaseModel, ValidationError

from bitwright.errors import InvalidRequestError
from bitwright.harmless import harmless
from quant_core.errors import CancelledError, SpecError, UserError
from quant_core.spec.shorthand import AsWritten, place_as_written
from quant_core.spec.wrong_field import what_is_wrong
from quant_core.written_files import read_written

FAULT, CORRECT, INTERRUPTED, UNREAD = 1, 2, 130, 141
# What a service answers or a job ends as, by the name of the client's error; nearest class first.
_SERVICE = {
    "InvalidRequestError": CORRECT,
    "NotFoundError": 3,
    "ConflictError": 4,
    "AuthenticationError": 5,
    "ForbiddenError": 5,
    "ServiceBusyError": 6,
    "ServiceUnreachableError": 7,
    "ServerError": 8,
    "JobFailedError": 10,
    "JobCanceledError": 11,
    "WaitTimeoutError": 12,
}

# What the user's own disk refuses is no fault of ours.
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})

# Settings that `bitwright serve` takes as options.
_OF_SERVE = frozenset({"host", "port", "data_dir", "devices"})

# Fields of the request that go by another name on the command line.
_OPTIONS = {
    "budget": "--size, --effective-bits, --bops, --peak-memory, --latency, --max-drop",
    "weight_bits": "--bits",
    "rules": "--pin, --exclude, --float-activations, --layer-activations",
    "loss_weights": "--loss-weight",
    "ties": "--tie",
    "symmetric": "--asymmetric",
    "quantized_parts": "--keep-quantized",
}


class MissingEngineError(Exception):
    """The client is installed without the engine."""


class OptionError(Exception):
    """Options have values that cannot be used."""


@contextmanager
def options(*, settings: bool = False) -> Iterator[None]:
    """Read options into a model within this context: what pydantic finds wrong is the user's to correct.

    Args:
        settings: Whether they are those of the service, most of which come from the environment.

    Yields:
        Nothing.

    Raises:
        OptionError: If a value cannot be used.
    """
    try:
        yield
    except ValidationError as error:
        raise OptionError(_explain(error, _setting if settings else _option)) from error


@contextmanager
def options_of(request: AsWritten) -> Iterator[None]:
    """Name the option where a request is refused within this context for one of its fields.

    Args:
        request: What was read from the options.

    Yields:
        Nothing.

    Raises:
        OptionError: If a field cannot be used.
        SpecError: If something else of the request cannot be used.
        InvalidRequestError: Likewise, where a service says so.
    """
    try:
        yield
    except (SpecError, InvalidRequestError) as error:
        place = request.place_of(error.where)
        if place is None:
            raise
        raise OptionError(f"{_option(tuple(place.split('.', 1)))}: {error.message} {error.remedy}") from error


def read_option(path: Path, option: str, kind: type[BaseModel], writer: str) -> BaseModel:
    """Read a file that an option names.

    Args:
        path: The file.
        option: The option.
        kind: What it holds.
        writer: The command that writes such files.

    Returns:
        What it holds.

    Raises:
        OptionError: If it cannot be read.
    """
    try:
        return read_written(kind, path, f"`{writer}`", f"Name what `{writer}` wrote.")
    except SpecError as error:
        raise OptionError(f"{option}: {path}: {error.message} {error.remedy}") from error


def exit_code(error: BaseException) -> int:
    """Choose the exit code.

    Args:
        error: What ended the command.

    Returns:
        2 for what the user can correct, 3 to 12 for what a service or a job says, 130 for an interruption, 141 where
        nobody reads what is printed, as shells say of others that SIGPIPE ends, 1 for a fault of ours.
    """
    if isinstance(error, SystemExit):
        if isinstance(error.__context__, BrokenPipeError):  # typer and rich answer it with 1
            return UNREAD
        return error.code if isinstance(error.code, int) else FAULT
    if isinstance(error, KeyboardInterrupt | CancelledError | typer.Abort):
        return INTERRUPTED
    if isinstance(error, UserError | OptionError | MissingEngineError) or _is_of_the_disk(error):
        return CORRECT
    for kind in type(error).__mro__:
        if kind.__module__ == "bitwright.errors" and kind.__name__ in _SERVICE:
            return _SERVICE[kind.__name__]
    # What typer raises for options it cannot read carries its own code.
    code = getattr(error, "exit_code", FAULT)
    return code if isinstance(code, int) else FAULT


def report(error: BaseException) -> None:
    """Tell the user what ended the command; a traceback only for faults of ours, and only on request.

    Args:
        error: What ended the command.
    """
    code = exit_code(error)
    if isinstance(error, SystemExit | typer.Exit):
        return
    if code == INTERRUPTED:
        print("Stopped.", file=sys.stderr)
    elif hasattr(error, "format_message"):
        if isinstance(error.__cause__, ValidationError) and hasattr(error, "message"):
            error.message = what_is_wrong(error.__cause__.errors()[0])
        error.show() if hasattr(error, "show") else _say(f"Error: {error}")
    elif _is_of_the_disk(error):
        place = f"{error.filename}: " if error.filename else ""
        _say(f"Error: {place}{error.strerror}. Make room there, or name another place.")
    elif code != FAULT:
        _say(f"Error: {_as_option(error)}")
    else:
        if os.environ.get("BITWRIGHT_DEBUG"):
            traceback.print_exception(error)
        _say(
            f"Internal error: {type(error).__name__}: {error}\n"
            "This is a fault of Bitwright. Set BITWRIGHT_DEBUG=1 to see where, and please report it."
        )


def _say(text: str) -> None:
    print(harmless(text), file=sys.stderr)


def _as_option(error: BaseException) -> str:
    """What is wrong, with the option in place of the part of the query that it was sent as."""
    place = getattr(error, "where", None) or ""
    if not place.startswith("query."):
        return str(error)
    return str(error).replace(place, "--" + place.removeprefix("query.").replace("_", "-"), 1)


def _explain(error: ValidationError, named: Callable[[tuple[int | str, ...]], str]) -> str:
    lines: dict[str, None] = {}
    for found in error.errors():
        message, option = what_is_wrong(found), named(place_as_written(found))
        lines[f"{option}: {message}" if option else message] = None
    return "\n".join(lines)


def _is_of_the_disk(error: BaseException) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in _DISK


def _setting(place: tuple[int | str, ...]) -> str:
    """The option or the variable of the environment that a setting was read from."""
    name = str(place[0]) if place else ""
    if name in _OF_SERVE:
        return "--" + name.replace("_", "-")
    return f"BITWRIGHT_{name.upper()}" if name else ""


def _option(place: tuple[int | str, ...]) -> str:
    """The option that a place in the request was read from."""
    field = next((str(part) for part in place if part != "budget"), str(place[0]) if place else "")
    return _OPTIONS.get(field, "--" + field.replace("_", "-") if field else "")
