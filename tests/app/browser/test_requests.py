"""Ways to a request: earlier uploads, uploads that break, remedies, pins, and text to copy."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitwright.cli.quantize import read_spec
from quant_core.spec import QuantizeSpec

pytestmark = pytest.mark.browser


def _fill(page: Any, files: tuple[Path, ...]) -> None:
    page.set_input_files("input[type=file][multiple]", [str(path) for path in files])
    page.get_by_role("heading", name="What the model holds").wait_for()
    page.get_by_role("combobox", name="Rounding").select_option("nearest")


def test_the_remedy_of_a_refused_latency_makes_a_job_that_succeeds(
    real_service: Any, small: tuple[Path, Path], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    times = {"form": "dynamic", "float_ms": 0.02, "float_spread": 0, "integer_ms": 0.01, "integer_spread": 0}
    table = {
        "model": "small.onnx", "target": "ort-cpu", "threads": 1, "batch": 1, "runs": 9, "activation_bits": 8,
        "float_rest": 0.1, "integer_rest": 0.1, "float_total": 0.22, "integer_total": 0.16,
        "layers": [{"name": f"layer{k}", **times} for k in range(6)],
    }  # fmt: skip
    (tmp_path / "latency.json").write_text(json.dumps(table))
    page = open_page(f"{real_service.url}/#/new", allow=("422",))
    _fill(page, small)
    page.get_by_label("Latency table").set_input_files(str(tmp_path / "latency.json"))
    page.get_by_label("Budget: Size").uncheck()
    slider = page.get_by_role("slider", name="Latency of the layers")
    slider.focus()
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "0.06 ms"
    page.get_by_label("Bits of layer0").select_option("float")
    page.get_by_role("button", name="Start").click()

    alert = page.get_by_role("alert")
    alert.wait_for(timeout=60_000)
    assert "layer0" in alert.inner_text()
    alert.get_by_role("button", name=re.compile("^Try again with 0.07 ms")).click()
    page.wait_for_url(re.compile("#/jobs/"))
    page.get_by_role("heading", name="Result").wait_for(timeout=600_000)
    repaired = real_service.job(page.url.rsplit("/", 1)[1])
    assert repaired["state"] == "succeeded"
    assert 0.07 < repaired["spec"]["budget"]["latency"] < 0.0701
    assert [rule["match"] for rule in repaired["spec"]["rules"]] == ["layer0"]


def test_the_remedy_of_a_refused_request_is_one_click_away(
    real_service: Any, small: tuple[Path, Path], open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{real_service.url}/#/new", allow=("422",))
    _fill(page, small)
    page.get_by_role("slider", name="Size").focus()
    page.keyboard.press("Home")
    for layer in range(6):
        page.get_by_label(f"Bits of layer{layer}").select_option("8")
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name=re.compile(r"^Try again with \d+ bytes")).click()
    page.get_by_role("heading", name="small.onnx").wait_for()
    assert real_service.job(page.url.rsplit("/", 1)[1])["spec"]["budget"]["size"] > 1
    page.get_by_role("button", name="Cancel").click()


def test_what_was_sent_is_picked_again_and_not_sent_twice(
    real_service: Any, small: tuple[Path, Path], open_page: Callable[..., Any]
) -> None:
    first = open_page(f"{real_service.url}/#/new")
    _fill(first, small)
    sent = [upload["id"] for upload in real_service.http.get("/uploads").json()["uploads"]]
    assert {upload.rsplit(".", 1)[0] for upload in sent} >= {"small.onnx", "small.npz"}

    page = open_page(f"{real_service.url}/#/new")
    puts: list[str] = []
    page.on("request", lambda request: request.method == "PUT" and puts.append(request.url))
    for label, name in (("Earlier model", "small.onnx"), ("Earlier samples", "small.npz")):
        picker = page.get_by_label(label)
        value = next(upload for upload in sent if upload.startswith(f"{name}."))
        picker.select_option(value)
    page.get_by_role("heading", name="What the model holds").wait_for()
    page.get_by_text("6", exact=True).first.wait_for()
    page.get_by_role("button", name="Start").click()
    page.get_by_role("heading", name="small.onnx").wait_for()
    with page.expect_request(lambda request: request.method == "DELETE") as asked:
        page.get_by_role("button", name="Cancel").click()
    assert asked.value.url.endswith("?cancel_only=true")  # a job that ends at this moment keeps its files
    _fill(open_page(f"{real_service.url}/#/new"), small)
    assert puts == []


def test_an_upload_goes_on_behind_the_last_piece_that_arrived(
    real_service: Any, small: tuple[Path, Path], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    heavy = tmp_path / "heavy.npz"
    heavy.write_bytes(small[1].read_bytes() + bytes(20 * 2**20))
    page = open_page(f"{real_service.url}/#/new", allow=("Failed to load", "ERR_FAILED", "4"))
    offsets: list[str] = []

    def watch(route: Any) -> None:
        headers = route.request.headers
        if route.request.method == "PUT" and int(headers["upload-length"]) > 2**23:
            offsets.append(headers["upload-offset"])
            if len(offsets) == 2:
                route.abort()
                return
        route.continue_()

    page.route("**/uploads/**", watch)
    page.set_input_files("input[type=file][multiple]", [str(small[0]), str(heavy)])
    progress = page.get_by_label("Sent of heavy.npz")
    progress.wait_for()
    page.wait_for_function("bar => bar.value === 1", arg=progress.element_handle())
    piece = 8 * 2**20
    assert offsets == ["0", str(piece), str(piece), str(2 * piece)]


def test_a_layer_is_pinned_by_a_click_and_the_next_job_keeps_it(
    real_service: Any, finished: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{real_service.url}/#/jobs/{finished}")
    canvas = page.get_by_role("img", name=re.compile("^Bits of 22 layers"))
    box = canvas.bounding_box()
    canvas.click(position={"x": 0.6 * box["width"], "y": 60})  # which waits until it moves no more
    layer = page.get_by_label("Pin a layer").evaluate("select => select.selectedOptions[0].textContent")
    assert layer != "/conv1/Conv"
    with page.expect_response(re.compile("/plans$")) as answer:
        page.get_by_label("Its bits").select_option("8")
    plan = {entry["name"]: entry for entry in answer.value.json()["layers"]}
    assert plan[layer]["bits"] == 8
    assert "pinned" in plan[layer]["reason"]
    page.get_by_role("list", name="Pinned layers").get_by_text(f"{layer}: 8").wait_for()
    with page.expect_request(lambda request: request.url.endswith("/quantize")) as sent:
        page.get_by_role("button", name="Make this one").click()
    assert json.dumps({"match": layer, "pin": 8}, separators=(",", ":")) in sent.value.post_data
    page.get_by_role("button", name="Cancel").click()


def test_layers_are_pinned_on_a_phone_without_looking_for_the_choice(
    real_service: Any, small: tuple[Path, Path], open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{real_service.url}/#/new", viewport={"width": 360, "height": 800})
    _fill(page, small)
    for what in ("Bits", "Activations"):
        box = page.get_by_role("combobox", name=f"{what} of layer0").bounding_box()
        assert box is not None
        assert 0 <= box["x"] < box["x"] + box["width"] <= 360
    page.get_by_label("Bits of layer0").select_option("8")
    assert '{"match":"layer0","pin":8}' in page.locator("pre").inner_text()


def test_densities_are_shown_where_they_were_estimated(
    real_service: Any, dense: str, finished: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{real_service.url}/#/jobs/{dense}")
    page.get_by_role("img", name=re.compile("^Density of the eigenvalues of whole net")).wait_for()
    page.get_by_role("combobox", name="Of", exact=True).select_option("/fc/Gemm")
    page.get_by_role("img", name=re.compile("^Density of the eigenvalues of .fc.Gemm")).wait_for()
    page.goto(f"{real_service.url}/#/jobs/{finished}")
    page.get_by_role("heading", name="Bits of the layers, and what they cost").wait_for()
    assert page.get_by_role("img", name=re.compile("^Density")).count() == 0


def test_what_is_copied_asks_for_the_same(
    server: Any, small: tuple[Path, Path], open_page: Callable[..., Any]
) -> None:
    # The fake engine's report has too few parts to be shown.
    page = open_page(f"{server.url}/#/new", allow=("Cannot read properties",))
    _fill(page, small)
    page.get_by_label("Bits of layer1").select_option("8")
    page.get_by_label("Bits of layer2").select_option("float")
    page.get_by_label("5", exact=True).uncheck()
    page.get_by_label("Budget: Drop of accuracy").check()
    page.get_by_label("eigenvalue density").check()

    def text(name: str) -> str:
        page.get_by_role("button", name=name, exact=True).click()
        return str(page.get_by_label(f"As {name}").inner_text())

    curl, python, command = (text(name) for name in ("curl", "Python", "Command line"))
    page.get_by_role("button", name="Start").click()
    page.get_by_role("heading", name="small.onnx").wait_for()
    wanted = server.job(page.url.rsplit("/", 1)[1])["spec"]

    folder = small[0].parent
    ran = subprocess.run(["bash", "-c", curl], cwd=folder, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["spec"] == wanted
    python = python.replace("job.wait()", "print(job.id)").replace('job.download("out")', "")
    ran = subprocess.run(
        [sys.executable, "-c", python], cwd=folder, capture_output=True, text=True, check=True
    )
    assert server.job(ran.stdout.strip())["spec"] == wanted
    assert _asked(command) == QuantizeSpec.model_validate(wanted)


def _asked(command: str) -> QuantizeSpec:
    """What the command line makes of a command."""
    import typer

    from bitwright.cli.app import app

    program, name, *arguments = shlex.split(command.replace("\\\n", " "))
    assert program == "bitwright"
    group: Any = typer.main.get_command(app)
    parsed = group.commands[name].make_context(name, arguments)
    return read_spec(parsed.params)
