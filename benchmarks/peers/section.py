"""A part of a documentation page that a benchmark writes: between two markers, everything else untouched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"

_HEADING = "### "


def write_section(page: Path, name: str, text: str) -> None:
    """Put a text between the markers of a page.

    Where it consists of parts with headings, they take the place of those with the same headings, and others stay.

    Args:
        page: The page.
        name: The markers' name.
        text: What is to stand between them.

    Raises:
        ValueError: If the page lacks the markers.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    whole = page.read_text(encoding="utf-8")
    if start not in whole or end not in whole:
        raise ValueError(f"{page.name} lacks {start} or {end}")
    before, _, rest = whole.partition(start)
    held, _, after = rest.partition(end)
    earlier = _by_heading(held) if text.startswith(_HEADING) else {}
    parts = "\n\n".join((earlier | _by_heading(text)).values()) or text.strip()
    page.write_text(f"{before}{start}\n{parts}\n{end}{after}", encoding="utf-8")


def _by_heading(text: str) -> dict[str, str]:
    parts = re.split(f"^(?={_HEADING})", text.strip(), flags=re.MULTILINE)
    return {part.partition("\n")[0]: part.strip() for part in parts if part.startswith(_HEADING)}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown, its columns aligned for those who read it as text.

    Args:
        head: Column titles.
        rows: Cells.

    Returns:
        The table, without a line break at its end.
    """
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in [head, *rows]
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])
