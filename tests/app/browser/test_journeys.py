"""What people do with the page, from a model on their disk to files that run."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytestmark = pytest.mark.browser


def _runs(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, {"input": images})[0]
    return output


def _download(page: Any, name: str, to: Path) -> Path:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=name).click()
    waiting.value.save_as(to)
    return to


def _repaints(page: Any) -> list[float]:
    """Milliseconds that both charts took to be drawn anew after each move of the budget, as the page measured them."""
    page.wait_for_function("performance.getEntriesByName('repaint').length >= 5")
    took: list[float] = page.evaluate("performance.getEntriesByName('repaint').map(entry => entry.duration)")
    return took


def test_from_files_to_a_model_and_to_another_point_of_the_curve(
    real_service: Any, resnet: tuple[Path, Path], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    page = open_page(f"{real_service.url}/#/new", accept_downloads=True)
    page.set_input_files("input[type=file]", [str(path) for path in resnet])
    page.get_by_role("heading", name="What the model holds").wait_for()
    for width in ("3", "5", "6"):
        page.get_by_label(width, exact=True).uncheck()
    page.get_by_role("combobox", name="Rounding").select_option("nearest")
    page.get_by_label("Bits of /conv1/Conv").select_option("8")
    page.get_by_role("button", name="Start").click()
    page.get_by_text("sensitivity").first.wait_for()
    page.get_by_role("heading", name="Result").wait_for(timeout=600_000)
    first = _download(page, "Download the model", tmp_path / "first.onnx")

    slider = page.get_by_role("slider", name="Budget")
    before = slider.get_attribute("aria-valuetext")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("PageDown")
    assert slider.get_attribute("aria-valuetext") != before
    page.get_by_role("button", name="Make this one").click()
    page.get_by_role("button", name="Cancel").wait_for()
    page.get_by_role("heading", name="Result").wait_for(timeout=600_000)
    second = _download(page, "Download the model", tmp_path / "second.onnx")

    assert second.stat().st_size < first.stat().st_size < resnet[0].stat().st_size / 3
    with np.load(resnet[1]) as data:
        images = data["input"]
    wanted = _runs(resnet[0], images)
    for path in (first, second):
        agreement = (_runs(path, images).argmax(1) == wanted.argmax(1)).mean()
        assert agreement > 0.8


def test_the_pinned_layer_and_the_reasons_are_shown(
    real_service: Any, finished: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{real_service.url}/#/jobs/{finished}")
    page.get_by_text("from pairs of runs").wait_for()  # no quotient of the two figures beside it
    page.get_by_text("As a table").click()
    report = real_service.http.get(f"/jobs/{finished}/report", headers={"Accept": "application/json"}).json()
    rows = page.get_by_role("region", name="Layers").locator("tbody tr")
    assert rows.count() == len(report["layers"])
    for index in (0, 7, len(report["layers"]) - 1):
        text = rows.nth(index).inner_text()
        layer = report["layers"][index]
        assert layer["name"] in text
        assert layer["reason"] in text


def test_dragging_repaints_fast_and_ends_at_the_services_plan(
    real_service: Any, finished: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{real_service.url}/#/jobs/{finished}")
    canvas = page.get_by_role("img", name=re.compile("^Pareto curve"))
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 100)
    page.mouse.down()
    for share in (0.55, 0.6, 0.7, 0.4):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 100)
    page.mouse.up()
    took = _repaints(page)
    assert len(took) >= 5
    assert median(took) < 200  # one of them may have waited for other programs


def test_three_hundred_layers_stay_smooth(
    real_service: Any, open_page: Callable[..., Any], deep: tuple[bytes, bytes]
) -> None:
    model, data = deep
    answer = real_service.http.post(
        "/quantize",
        files={"model": ("deep.onnx", model), "data": ("d.npz", data)},
        data={"spec": json.dumps({"size": 0.9, "bits": [4, 8], "rounding": "nearest"})},
    )
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    assert real_service.wait_for(job, "succeeded", "failed")["state"] == "succeeded"
    page = open_page(f"{real_service.url}/#/jobs/{job}")
    slider = page.get_by_role("slider", name="Budget")
    slider.focus()
    for key in ("Home", "PageUp", "PageUp", "End", "PageDown", "ArrowLeft"):
        page.keyboard.press(key)
    took = _repaints(page)
    assert len(took) >= 5
    assert median(took) < 200  # one of them may have waited for other programs


def test_a_running_job_can_be_canceled(server: Any, open_page: Callable[..., Any]) -> None:
    job = server.submit(seed=1)
    server.wait_until_running(job)
    page = open_page(f"{server.url}/#/jobs/{job}")
    page.get_by_role("button", name="Cancel").click()
    page.locator(".badge-canceled").wait_for()
    assert server.job(job)["state"] == "canceled"


def test_a_failure_tells_the_remedy(server: Any, open_page: Callable[..., Any]) -> None:
    job = server.submit(seed=5)
    failure = server.wait_for(job, "failed")["error"]
    page = open_page(f"{server.url}/#/jobs/{job}")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert failure["message"] in alert.inner_text()
    assert failure["remedy"] in alert.inner_text()


def test_what_is_no_model_is_refused_with_a_remedy(
    server: Any, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x0a nonsense")
    page = open_page(f"{server.url}/#/new", allow=("422",))
    page.set_input_files("input[type=file]", str(tmp_path / "broken.onnx"))
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "broken.onnx" in alert.inner_text()
    assert page.get_by_role("button", name="Start").is_disabled()


def test_it_goes_on_after_the_service_restarts(
    make_server: Callable[..., Any], open_page: Callable[..., Any]
) -> None:
    service = make_server(BITWRIGHT_LEASE_SECONDS="3", BITWRIGHT_RENEW_SECONDS="0.5")
    job = service.submit(seed=1)
    service.wait_until_running(job)
    page = open_page(f"{service.url}/#/jobs/{job}", allow=("ERR_", "Failed to load"))
    page.get_by_text("sensitivity").first.wait_for()
    service.stop(signal.SIGKILL)
    page.get_by_text("connection lost").wait_for()
    service.start()
    page.get_by_text("connection lost").wait_for(state="detached")
    page.get_by_role("button", name="Cancel").click()
    page.locator(".badge-canceled").wait_for()


def test_jobs_are_compared_on_one_chart(
    real_service: Any, finished: str, dense: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{real_service.url}/#/compare?jobs={finished},{dense}")
    page.get_by_role("img", name=re.compile("^Pareto curves of 2 jobs")).wait_for()
    assert page.get_by_role("region", name="The jobs side by side").locator("tbody tr").count() == 2
