"""A real browser on a real service. A test fails on anything that the page writes to the console as an error."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

ROOT = Path(__file__).parents[3]
SCREENSHOTS = ROOT / "docs" / "images"
DATA = ROOT / "benchmarks" / "data"
_CANDIDATES = ("chromium", "chromium-browser", "google-chrome")
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    found = os.environ.get("BITWRIGHT_CHROMIUM") or next(filter(None, map(shutil.which, _CANDIDATES)), None)
    assert found, "no Chromium: install the distribution's `chromium`, or name one in BITWRIGHT_CHROMIUM"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=list(_QUIET))
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages in a profile of their own; in the end none may have complained, but for what was allowed."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    allowed: list[str] = []

    def new(address: str, *, allow: tuple[str, ...] = (), **options: Any) -> Page:
        allowed.extend(allow)
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    yield new
    for context in contexts:
        context.close()
    assert [text for text in complaints if not any(part in text for part in allowed)] == []


@pytest.fixture(scope="session")
def real_service(make_server: Callable[..., Any]) -> Any:
    """A service with the real engine."""
    return make_server(
        BITWRIGHT_ENGINE="quant_core.pipeline:quantize",
        BITWRIGHT_VALIDATOR="quant_core.pipeline:validate",
        BITWRIGHT_ANALYZER="quant_core.analysis:analyze",
        BITWRIGHT_ANALYSIS_VALIDATOR="quant_core.analysis:validate",
    )


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The trained ResNet-20 and 48 labelled images."""
    folder = tmp_path_factory.mktemp("resnet")
    with np.load(DATA / "cifar10_calibration.npz") as data:
        np.savez(folder / "few.npz", input=data["input"][:48], labels=data["labels"][:48])
    return DATA / "resnet20_cifar10.onnx", folder / "few.npz"


@pytest.fixture(scope="session")
def finished(real_service: Any, resnet: tuple[Path, Path]) -> str:
    """A job that succeeded."""
    return _run(real_service, resnet, {"size": 0.16, "bits": [2, 4, 8], "rounding": "nearest"}, "nightly")


@pytest.fixture(scope="session")
def dense(real_service: Any, resnet: tuple[Path, Path]) -> str:
    """Another job on the same model, which was asked for eigenvalue densities."""
    spec = {"size": 0.2, "bits": [3, 5, 6], "rounding": "nearest", "spectrum": True}
    return _run(real_service, resnet, spec, "dense")


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., None]:
    """Take a picture of a page, for the documentation where that is asked for."""
    folder = SCREENSHOTS if os.environ.get("BITWRIGHT_SCREENSHOTS") else tmp_path

    def take(page: Page, name: str) -> None:
        page.wait_for_timeout(300)
        part = {"clip": {"x": 0, "y": 0, "width": 1200, "height": 1700}} if "report" in name else {}
        if "desktop" in name:
            page.screenshot(path=folder / f"{name}.png", full_page=True, **part)
        else:
            page.screenshot(path=folder / f"{name}.png")

    return take


def _run(real_service: Any, files: tuple[Path, Path], spec: dict[str, Any], tag: str) -> str:
    import json

    model, data = files
    answer = real_service.http.post(
        "/quantize",
        params={"tag": tag},
        files={"model": (model.name, model.read_bytes()), "data": (data.name, data.read_bytes())},
        data={"spec": json.dumps(spec)},
    )
    assert answer.status_code == 202, answer.text
    job = str(answer.json()["id"])
    found = real_service.wait_for(job, "succeeded", "failed")
    assert found["state"] == "succeeded", found
    return job


@pytest.fixture(scope="session")
def deep() -> tuple[bytes, bytes]:
    """A model of 300 layers, and samples for it."""
    return _chain(300), _samples(12)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of a model of six layers, and of samples for it."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.onnx").write_bytes(_chain(6, 32))
    (folder / "small.npz").write_bytes(_samples(24, 32))
    return folder / "small.onnx", folder / "small.npz"


def _chain(count: int, width: int = 8) -> bytes:
    """A chain of small linear layers."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    nodes, weights, at = [], [], "input"
    for index in range(count):
        weight = generator.standard_normal((width, width)).astype(np.float32) / np.sqrt(width)
        weights.append(numpy_helper.from_array(weight + np.eye(width, dtype=np.float32), f"w{index}"))
        nodes.append(helper.make_node("MatMul", [at, f"w{index}"], [f"x{index}"], f"layer{index}"))
        nodes.append(helper.make_node("Tanh", [f"x{index}"], [f"t{index}"], f"tanh{index}"))
        at = f"t{index}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info(at, TensorProto.FLOAT, ["n", width])],
        weights,
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    return model.SerializeToString()


def _samples(count: int, width: int = 8) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, input=np.random.default_rng(1).standard_normal((count, width)).astype(np.float32))
    return buffer.getvalue()
