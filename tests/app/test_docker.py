"""The images and the composition refer to what exists: files, extras, settings, commands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings
from bitwright.cli.app import app

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SETTINGS = {f"BITWRIGHT_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.gpu"])
def test_an_image_is_made_of_what_is_here(name: str) -> None:
    text = (ROOT / "docker" / name).read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extra,) = re.findall(r"'\.\[(\w+)\]'", text)
    assert extra in project["optional-dependencies"]
    packages = [
        requirement for requirement in project["optional-dependencies"][extra] if "onnxruntime" in requirement
    ]
    assert re.split(r"[><=]", packages[0])[0] in text.split()
    assert set(re.findall(r"BITWRIGHT_\w+", text)) <= SETTINGS
    users = re.findall(r"^USER (\w+)", text, re.MULTILINE)
    assert users == ["bitwright"]
    assert "HEALTHCHECK" in text
    assert text.count("FROM python:") == 2
    assert all("-c constraints.txt" in line for line in text.splitlines() if "pip install" in line)
    (command,) = re.findall(r'^CMD \["bitwright", "(\w+)"\]', text, re.MULTILINE)
    assert command in {entry.callback.__name__ for entry in app.registered_commands if entry.callback}
    ignore = (ROOT / "docker" / f"{name}.dockerignore").read_text()
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)", text, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert all(f"!{source}" in ignore.splitlines() for source in sources)


def test_compose_alone_starts_one_service_on_a_volume() -> None:
    always = {name for name, service in COMPOSE["services"].items() if "profiles" not in service}
    assert always == {"api"}
    for service in COMPOSE["services"].values():
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert set(service["environment"]) <= SETTINGS
        volume, _, target = service["volumes"][0].partition(":")
        assert volume in COMPOSE["volumes"]
        assert target == "/data"
        assert service["ports"][0].startswith("127.0.0.1:")
    assert "deploy" in COMPOSE["services"]["api-gpu"]
