"""Layer names short enough to stand under a bar."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST = 22


def short_names(names: Sequence[str], ops: Sequence[str]) -> list[str]:
    """Shorten exporter's paths such as `/layer1/layer1.0/conv1/Conv` to `layer1.0/conv1`.

    Args:
        names: Layer names.
        ops: Operator type of each layer.

    Returns:
        One label a layer, at most `LONGEST` characters; not necessarily unique.
    """
    return [_tail(_without_repeats(name, op)) for name, op in zip(names, ops, strict=True)]


def _without_repeats(name: str, op: str) -> str:
    parts = [part for part in name.split("/") if part]
    if len(parts) > 1 and re.fullmatch(rf"{re.escape(op)}(_\d+)?(_quant)?", parts[-1]):
        parts.pop()
    kept = [
        part for part, after in zip(parts, [*parts, ""][1:], strict=True) if not after.startswith(f"{part}.")
    ]
    return "/".join(kept) or name


def _tail(label: str) -> str:
    return label if len(label) <= LONGEST else "…" + label[-(LONGEST - 1) :]
