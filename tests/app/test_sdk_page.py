"""The page on the Python client: what it shows of the engine runs as it stands."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from bitwright import Client

ROOT = Path(__file__).parents[2]
SERVICE = "http://127.0.0.1:8000"


@pytest.mark.parametrize("section", ["The Python client", "To await", "Many models"])
def test_what_the_page_shows_of_the_client_runs_by_itself(
    section: str,
    server: Any,
    model_file: Path,
    sample_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = re.split(rf"^#+ {section}$", (ROOT / "docs" / "sdk.md").read_text(), flags=re.MULTILINE)[1]
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BITWRIGHT_URL", server.url)
    (tmp_path / "models").mkdir()
    for name in ("model.onnx", "models/a.onnx", "models/b.onnx"):
        (tmp_path / name).write_bytes(model_file.read_bytes())
    sample_file.rename("calib.npz")
    exec(found[1].replace(SERVICE, server.url), {"__name__": "page"})
    made = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("report.json")}
    assert made == ({"out/a", "out/b"} if section == "Many models" else {"out"})


def test_the_functions_of_the_engine_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "sdk.md").read_text()
    shown = re.findall(r"^\| `(quant_core[\w.]+)\.(\w+)\((.*)\)` \|", page, re.MULTILINE)
    assert len(shown) == 8
    for module, name, given in shown:
        words = re.sub(r"\w+Spec\(\.\.\.\)", "spec", given).split(", ")
        taken = list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
        assert [word.partition("=")[0] for word in words] == taken[: len(words)], name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of torch, about itself
def test_a_module_and_a_loader_are_taken_as_the_page_shows(server: Any) -> None:
    section = (ROOT / "docs" / "sdk.md").read_text().split("## Models and samples")[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    images = torch.randn(32, 3, 8, 8)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 4)
    )
    with Client(server.url) as client:
        names: dict[str, Any] = {"client": client, "net": net, "images": images}
        exec(found[1], names | {"dataset": [(image, k % 4) for k, image in enumerate(images)]}, names)
        assert names["job"].wait().state == "succeeded"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of torch, about itself
def test_the_engine_is_used_without_a_service_as_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = (ROOT / "docs" / "sdk.md").read_text().split("## Without a service")[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 24, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(24 * 36, 32)
    )
    names: dict[str, Any] = {"net": net, "images": torch.randn(32, 3, 8, 8)}
    exec(found[1], names)
    assert names["report"].model.quantized_bytes == (tmp_path / "result" / "model.onnx").stat().st_size
    assert names["report"].model.ratio <= 0.25
    onnx.checker.check_model(tmp_path / "result" / "model.onnx")
