"""The table of operators that have code of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quant_core.errors import InternalError

if TYPE_CHECKING:
    from quant_core.executor.node import Node

Kernel = Callable[..., Any]
"""Called with one tensor (or None where an optional input is absent) per node input; returns one tensor or a tuple."""


@dataclass(frozen=True)
class Overwriting:
    """A kernel that can also write its result over its first argument: the same values, without a new tensor.

    Attributes:
        plain: Leaves its arguments as they are.
        over: Overwrites the first one, which nothing else may read.
    """

    plain: Kernel
    over: Kernel

    def __call__(self, *arguments: Any) -> Any:
        """Leaves the arguments as they are."""
        return self.plain(*arguments)


Builder = Callable[["Node"], Kernel]
"""Called once at compile time with everything known about a node; returns its kernel."""

WHOLE = "the result is an integer or a boolean"
STEPS = "constant almost everywhere"
DRAWN = "drawn at random"
SIZES = "made of sizes and settings alone"


@dataclass(frozen=True)
class Operator:
    """One operator of one domain over a range of opsets.

    Attributes:
        name: Operator type.
        domain: Operator domain; empty for the ONNX standard.
        since: First opset version.
        until: Last opset version, or None while it is current.
        build: Turns a node into its kernel.
        flat: Why there is no derivative but zero; empty for an operator that may be differentiated twice.
        straight: Whether derivatives pass straight through a rounding.
        note: What a reader should know.
        pure: Whether equal arguments always give equal results; random operators do not.
    """

    name: str
    domain: str
    since: int
    until: int | None
    build: Builder
    flat: str
    straight: bool
    note: str
    pure: bool

    def covers(self, version: int) -> bool:
        """Whether this entry is meant for an opset version."""
        return self.since <= version and (self.until is None or version <= self.until)


_TABLE: dict[tuple[str, str], list[Operator]] = {}


def operator(
    *names: str,
    domain: str = "",
    since: int = 1,
    until: int | None = None,
    flat: str = "",
    straight: bool = False,
    note: str = "",
    pure: bool = True,
) -> Callable[[Builder], Builder]:
    """Registers a builder for one or more operators.

    Args:
        *names: Operator types.
        domain: Operator domain; empty for the ONNX standard.
        since: First opset version the builder is right for.
        until: Last opset version the builder is right for.
        flat: Why there is no derivative but zero; empty if the operator may be differentiated twice.
        straight: Whether derivatives pass straight through a rounding.
        note: Shown in the generated operator table.
        pure: Whether equal arguments always give equal results.

    Returns:
        A decorator that leaves the builder unchanged.
    """

    def register(build: Builder) -> Builder:
        for name in names:
            entry = Operator(name, domain, since, until, build, flat, straight, note, pure)
            known = _TABLE.setdefault((domain, name), [])
            last = float("inf") if until is None else until
            if any(other.covers(since) or since <= other.since <= last for other in known):
                raise InternalError(f"operator {domain}::{name} is registered twice for opset {since}")
            known.append(entry)
        return build

    return register


def direct(name: str, function: Kernel, *, flat: str = "", note: str = "", domain: str = "") -> None:
    """Registers an operator without attributes whose kernel is a plain function of its inputs."""
    operator(name, domain=domain, flat=flat, note=note)(lambda _node: function)


def find(domain: str, name: str, version: int) -> Operator | None:
    """The entry for an operator at an opset version, or None if it has no code of its own."""
    entries = _TABLE.get(("" if domain == "ai.onnx" else domain, name), ())
    return next((entry for entry in entries if entry.covers(version)), None)


def registered() -> Iterator[Operator]:
    """Every entry, by domain and name.

    Yields:
        Entries in alphabetical order.
    """
    for key in sorted(_TABLE):
        yield from sorted(_TABLE[key], key=lambda entry: entry.since)
