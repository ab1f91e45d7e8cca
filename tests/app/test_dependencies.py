"""What is imported is declared, not only brought along by something else that is."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = {"app", "benchmarks", "bitwright", "quant_core", "tests"}
MAKERS = {**packages_distributions(), "google.protobuf": ["protobuf"]}
IMPORT = re.compile(r"^ *(?:from ([\w.]+) import|import ([\w.]+))", re.MULTILINE)


def _plain(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def _imported(room: str) -> set[str]:
    found = set()
    for file in (ROOT / room).rglob("*.py"):
        for pair in IMPORT.findall(file.read_text()):
            top, *rest = "".join(pair).split(".")
            found.add(f"{top}.{rest[0]}" if top == "google" else top)  # which many distributions share
    return {name for name in found if name not in sys.stdlib_module_names | OWN}


@pytest.mark.parametrize("room", ["bitwright", "quant_core", "app", "tests"])
def test_what_is_imported_is_declared(room: str) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, groups = declared["project"], declared["dependency-groups"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    lists += groups.values() if room == "tests" else []
    known = {_plain(entry) for entries in lists for entry in entries}
    unknown = {
        name for name in _imported(room) if not known & {_plain(each) for each in MAKERS.get(name, [name])}
    }
    assert unknown == set()
