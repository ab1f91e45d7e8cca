"""The images and the composition refer to what exists: files, extras, settings, commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema
import pytest
import yaml

from app.settings import Settings
from app.storage import open_storage
from bitwright.cli.app import app

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SETTINGS = {f"BITWRIGHT_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.gpu"])
def test_an_image_is_made_of_what_is_here(name: str) -> None:
    text = (ROOT / "docker" / name).read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ((extra, spans),) = re.findall(r"'\.\[(\w+),(\w+)\]'", text)
    assert {extra, spans} <= set(project["optional-dependencies"])
    packages = [
        requirement for requirement in project["optional-dependencies"][extra] if "onnxruntime" in requirement
    ]
    assert re.split(r"[><=]", packages[0])[0] in text.split()
    assert set(re.findall(r"BITWRIGHT_\w+", text)) <= SETTINGS
    (user,) = re.findall(
        r"^USER (\d+):\d+$", text, re.MULTILINE
    )  # a number, so that a cluster sees it is not root
    assert f"--uid {user} " in text
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


def _healthcheck(name: str) -> list[str]:
    (command,) = re.findall(
        r"^HEALTHCHECK .*\n +CMD (\[.*\])$", (ROOT / "docker" / name).read_text(), re.MULTILINE
    )
    return [str(word) for word in json.loads(command)]


class _Ready(BaseHTTPRequestHandler):
    status = 204

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_container_is_healthy_where_its_service_is_ready_whatever_proxy_it_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _healthcheck("Dockerfile.cpu") == _healthcheck("Dockerfile.gpu")
    python, *arguments = _healthcheck("Dockerfile.cpu")
    assert python == "python"
    with HTTPServer(("127.0.0.1", 0), _Ready) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        environment = {"BITWRIGHT_PORT": str(server.server_port), "http_proxy": "http://127.0.0.1:9"}

        def asked() -> int:
            return subprocess.run(
                [sys.executable, *arguments], env=environment, check=False, capture_output=True
            ).returncode

        assert asked() == 0
        monkeypatch.setattr(_Ready, "status", 503)
        assert asked() == 1
        server.shutdown()


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.gpu", "Dockerfile.ray"])
def test_hadolint_finds_nothing(name: str, tmp_path: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    linted = subprocess.run([hadolint, ROOT / "docker" / name], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /x && pip install torch\n")
    broken = subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
    assert {"DL3007", "DL3013"} <= set(re.findall(r"DL\d+", broken.stdout))


def test_the_composition_is_one_by_the_specification() -> None:
    schema = json.loads((ROOT / "tests" / "data" / "compose-spec.json").read_text())
    validator = jsonschema.Draft7Validator(schema)  # compose-spec/compose-spec, 170098ba, Apache-2.0
    validator.validate(COMPOSE)
    broken = {**COMPOSE, "services": {**COMPOSE["services"], "api": {"imagge": "x"}}}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(broken)


def test_compose_alone_starts_a_service_with_a_database_and_a_store_on_volumes() -> None:
    services = COMPOSE["services"]
    always = {name for name, service in services.items() if "profiles" not in service}
    assert always == {"api", "database", "store", "bucket"}
    ours = {name: service for name, service in services.items() if "build" in service}
    assert set(ours) == {"api", "api-gpu"}
    for service in ours.values():
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert {name for name in service["environment"] if name.startswith("BITWRIGHT_")} <= SETTINGS
        assert service["volumes"][0].endswith(":/data")
        assert service["read_only"]
        assert set(service["depends_on"]) == {"database", "bucket"}
    for name, service in services.items():
        assert name in ours or service["networks"] == ["inner"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert {volume.partition(":")[0] for volume in service.get("volumes", ())} <= set(COMPOSE["volumes"])
        assert "build" in service or re.fullmatch(r"[\w/]+:[\w.:-]*\d[\w.:-]*", service["image"])  # pinned
        for other, how in service.get("depends_on", {}).items():
            waits = how["condition"] == "service_healthy"
            assert ("healthcheck" in services[other]) == waits, (name, other)
    assert COMPOSE["networks"]["inner"]["internal"] is True
    assert "deploy" in services["api-gpu"]


def test_the_composed_services_are_told_what_they_can_read() -> None:
    told = {
        name.removeprefix("BITWRIGHT_").lower(): re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
        for name, value in COMPOSE["services"]["api"]["environment"].items()
        if name.startswith("BITWRIGHT_")
    }
    settings = Settings.model_validate(told)
    # What the composition itself says, what an image says, and what needs more than a variable.
    fixed = {"data_dir", "host", "port", "devices", "storage_public_endpoint"} | {
        name for name in Settings.model_fields if name.startswith(("executor", "ray_"))
    }
    inner = {"engine", "validator", "analyzer", "analysis_validator", "inspector"}
    assert set(told) == set(Settings.model_fields) - fixed - inner
    defaults = Settings.model_construct()
    composed = {"database_url", "storage_url", "log_format"}
    assert {name for name in told if getattr(settings, name) != getattr(defaults, name)} == composed
    assert settings.database_url == "postgresql://bitwright:bitwright@database/bitwright"
    assert settings.keys == "auto"
    assert settings.log_format == "json"
    open_storage(settings.storage_url, Path("unused"))
