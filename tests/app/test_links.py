"""Links of the pages lead to files and headings that are there, and what they name of the code stands there too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [
    f"/{file.relative_to(ROOT).as_posix()}"
    for room in ("app", "bitwright", "quant_core", "benchmarks", "tests")
    for file in (ROOT / room).rglob("*.py")
]


def _anchors(page: Path) -> set[str]:
    """What GitHub names the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and anchor not in _anchors(place)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_of_the_code_are_there(page: Path) -> None:
    spans = re.findall(r"`([^`\n]+)`", page.read_text())
    paths = {path for span in spans for path in re.findall(r"[\w/]+\.py\b", span)}
    assert [path for path in sorted(paths) if not any(file.endswith(f"/{path}") for file in SOURCES)] == []
    names = {
        name for span in spans for name in re.findall(r"\b(?:quant_core|app|benchmarks)(?:\.\w+)+", span)
    }
    assert [name for name in sorted(names) if not _is_there(name)] == []


def _is_there(name: str) -> bool:
    """Whether a dotted name is a module, or stands in one."""
    place = ROOT / name.replace(".", "/")
    if place.is_dir() or place.with_suffix(".py").exists():
        return True
    parent, word = place.parent, place.name
    module = parent / "__init__.py" if parent.is_dir() else parent.with_suffix(".py")
    return module.exists() and re.search(rf"\b{word}\b", module.read_text()) is not None


def test_the_first_page_leads_to_every_other() -> None:
    linked = set(re.findall(r"\]\(docs/([\w]+\.md)\)", (ROOT / "README.md").read_text()))
    assert linked == {page.name for page in PAGES[2:]}
