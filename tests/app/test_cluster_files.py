"""What is checked in for clusters refers to what exists, and tells Ray's machines nothing that is not theirs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.version import Version

from app.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.ray.yml").read_text())
KUBERNETES: dict[str, dict[str, Any]] = {
    found["kind"]: found for found in yaml.safe_load_all((ROOT / "docker" / "kuberay.yaml").read_text())
}
SETTINGS = {f"BITWRIGHT_{name.upper()}" for name in Settings.model_fields}
SECRETS = re.compile(r"BITWRIGHT_|AWS_|POSTGRES|S3_|MINIO")


def _pods() -> dict[str, dict[str, Any]]:
    spec = KUBERNETES["RayCluster"]["spec"]
    pods = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"]["spec"], **pods}


def _told(environment: dict[str, Any], **values: str) -> Settings:
    plain = {
        name.removeprefix("BITWRIGHT_").lower(): re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
        for name, value in environment.items()
    }
    return Settings.model_validate(plain | values)


def test_the_composition_with_ray_is_one_by_the_specification() -> None:
    schema = json.loads((ROOT / "tests" / "data" / "compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)
    below = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    known = set(below["services"]) | set(COMPOSE["services"])
    for service in COMPOSE["services"].values():
        assert set(service.get("depends_on", {})) <= known
        assert set(service.get("networks", [])) <= set(below["networks"])
    assert (ROOT / COMPOSE["services"]["api"]["build"]["dockerfile"]).is_file()


def test_the_composed_service_is_told_what_it_can_read() -> None:
    environment = COMPOSE["services"]["api"]["environment"]
    assert set(environment) <= SETTINGS
    settings = _told(environment, ray_token="0123456789abcdef")
    assert settings.executor == "ray"
    assert settings.ray_address == "ray-head:6379"


def test_rays_machines_are_told_the_token_and_no_other_secret() -> None:
    for name, service in COMPOSE["services"].items():
        if name != "api":
            assert set(service["environment"]) == {"RAY_AUTH_TOKEN"}
    for pod in _pods().values():
        for container in pod["containers"]:
            assert not {entry["name"] for entry in container.get("env", [])}
            assert "envFrom" not in container
    joining = COMPOSE["services"]["api"]["command"][-1], _service()["command"][-1]
    for command in joining:
        before, _, after = command.partition("ray start")
        assert before.startswith("env -i ")
        assert not SECRETS.search(before.replace("$$", "$").replace("$BITWRIGHT_RAY_TOKEN", ""))
        assert "--num-cpus=0 --num-gpus=0" in after
        assert after.endswith("exec bitwright serve")


def test_the_cluster_on_kubernetes_runs_what_the_tests_ran_against() -> None:
    spec = KUBERNETES["RayCluster"]["spec"]
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    assert Version(spec["rayVersion"]) == Version(pinned["ray"])
    assert spec["authOptions"] == {"mode": "token", "secretName": "bitwright-ray"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for pod in [*_pods().values(), KUBERNETES["Deployment"]["spec"]["template"]["spec"]]:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["image"].startswith("bitwright:ray")
            assert container["securityContext"]["allowPrivilegeEscalation"] is False


def _service() -> dict[str, Any]:
    (container,) = KUBERNETES["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_the_service_on_kubernetes_is_told_what_it_can_read() -> None:
    environment = {entry["name"]: entry.get("value", "0123456789abcdef") for entry in _service()["env"]}
    assert set(environment) <= SETTINGS
    settings = _told(environment)
    assert settings.executor == "ray"
    assert len(settings.devices) == 4
    name = KUBERNETES["RayCluster"]["metadata"]["name"]
    assert settings.ray_address == f"{name}-head-svc:6379"
    secrets = {
        entry["valueFrom"]["secretKeyRef"]["name"] for entry in _service()["env"] if "valueFrom" in entry
    }
    assert secrets == {KUBERNETES["RayCluster"]["spec"]["authOptions"]["secretName"]}


@pytest.mark.parametrize(
    ("told", "missing"),
    [
        ({}, "ray_address"),
        ({"ray_address": "head"}, "ray_address"),
        ({"ray_address": "head:6379"}, "ray_token"),
        ({"ray_address": "head:6379", "ray_token": "short"}, "ray_token"),
    ],
)
def test_a_cluster_needs_an_address_and_a_token(told: dict[str, str], missing: str) -> None:
    with pytest.raises(ValueError, match=f"(?i){missing}"):
        Settings.model_validate({"executor": "ray", **told})
