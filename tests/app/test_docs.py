"""The pages tell of every route, setting and option, and of none that do not exist."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from app.main import create_app
from app.settings import Settings
from bitwright.cli.app import app

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_on_http_names_every_route(tmp_path: Path) -> None:
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    named = set(re.findall(r"^\| `([A-Z]+ [^`?]+)", (DOCS / "http.md").read_text(), re.MULTILINE))
    assert named == routes


def test_the_page_on_the_command_line_names_every_setting_and_option() -> None:
    page = (DOCS / "cli.md").read_text()
    for_tests = {"BITWRIGHT_ENGINE", "BITWRIGHT_VALIDATOR"}
    settings = {f"BITWRIGHT_{name.upper()}" for name in Settings.model_fields} - for_tests
    assert set(re.findall(r"BITWRIGHT_\w+", page)) == settings | {"BITWRIGHT_DEBUG"}
    commands = get_command(app).commands  # type: ignore[attr-defined]
    options = {
        option
        for command in commands.values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }
    assert set(re.findall(r"--[a-z][a-z-]+", page)) - {"--version"} == options | {"--help"}
