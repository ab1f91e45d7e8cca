"""The pages tell of every route, setting and option, and of none that do not exist."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command

from app.main import create_app
from app.settings import Settings
from app.settings_table import settings_table
from bitwright.cli.app import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_the_page_on_http_names_every_route(tmp_path: Path) -> None:
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    named = set(re.findall(r"^\| `([A-Z]+ [^`?]+)", (DOCS / "http.md").read_text(), re.MULTILINE))
    assert named == routes


def test_the_page_on_the_command_line_names_every_setting_and_option() -> None:
    page = (DOCS / "cli.md").read_text()
    assert settings_table() in (DOCS / "operations.md").read_text()
    settings = {f"BITWRIGHT_{name.upper()}" for name in Settings.model_fields}
    for_clients = {"BITWRIGHT_DEBUG", "BITWRIGHT_URL", "BITWRIGHT_API_KEY"}
    for name in ("cli.md", "operations.md", "http.md"):
        assert set(re.findall(r"BITWRIGHT_\w+", (DOCS / name).read_text())) <= settings | for_clients
    options = {
        option
        for command in _commands(get_command(app))
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }
    of_all = {"--version", "--help", "--install-completion", "--show-completion"}
    named = {option.replace("--no-", "--") for option in re.findall(r"--[a-z][a-z-]+", page)}
    assert named | of_all == options | of_all


def test_the_first_page_names_commands_options_and_targets_that_exist() -> None:
    page = (ROOT / "README.md").read_text()
    commands = get_command(app)
    known = {command.name for command in _commands(commands)}
    spans = re.findall(r"`bitwright ([a-z][a-z |]*)", page)
    named = {word.split()[0] for span in spans for word in span.split("|")}
    named |= set(re.findall(r"^bitwright ([a-z]+)", page, re.MULTILINE))
    assert {"quantize", "plan", "submit", "download"} <= named <= known
    options = {one for each in _commands(commands) for parameter in each.params for one in parameter.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) <= options
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", page)) <= targets


def _commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield from _commands(command) if hasattr(command, "commands") else [command]


def test_the_page_on_the_architecture_names_rooms_in_their_order_and_what_they_hold() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("containers") == ["quant_core"])
    rooms = [set(layer.split(" | ")) for layer in reversed(layers)]
    page = (DOCS / "architecture.md").read_text()
    tabled = [row.strip("| ").split(" | ") for row in re.findall(r"^\| `.*", page, re.MULTILINE)]
    of_the_service = [row for row in tabled if row[0].startswith("`app/")]
    assert [row[0] for row in of_the_service if not list(ROOT.glob(f"{row[0].strip('`')}*"))] == []
    rows = [row for row in tabled if row not in of_the_service]
    assert [set(re.findall(r"`(\w+)`", row[0])) for row in rows] == rooms
    for row in rows:
        code = "".join(
            path.read_text()
            for room in re.findall(r"`(\w+)`", row[0])
            for path in [
                *(ROOT / "quant_core").glob(f"{room}.py"),
                *(ROOT / "quant_core" / room).rglob("*.py"),
            ]
        )
        named = re.findall(r"`(\w+)[(`]", row[-1])
        assert [
            name for name in named if not re.search(rf"^(?:def|class) {name}\b", code, re.MULTILINE)
        ] == []


def test_the_samples_of_the_page_are_made_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for number, colour in enumerate(["red", "blue"]):
        images.new("RGB", (40, 30), colour).save(tmp_path / "pictures" / f"{number}.jpg")
    text = (DOCS / "cli.md").read_text().split("From a folder of pictures")[1]
    exec(text.split("```python\n")[1].split("```")[0], {})
    with np.load("samples.npz") as file:
        assert (file["input"].shape, file["input"].dtype) == ((2, 3, 224, 224), np.float32)
        assert file["input"][0, :, 0, 0] == pytest.approx([1, 0, 0], abs=0.02)
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    exec(re.search(r"`(np\.savez\(.*loadtxt.*)`", text)[1], {"np": np})  # type: ignore[index]
    with np.load("samples.npz") as file:
        assert file["input"].tolist() == [[1, 2], [3, 4]]
