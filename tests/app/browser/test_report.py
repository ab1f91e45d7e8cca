"""The report as a file on somebody's disk: no service, no network, only what stands in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

DESKTOP = {"width": 1200, "height": 850}
PHONE = {"width": 390, "height": 844}
_PAINTED = """canvas => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const seen = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3]) seen.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
  return seen.size;
}"""


@pytest.fixture(scope="session")
def report(real_service: Any, dense: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a job with densities, as a file."""
    answer = real_service.http.get(f"/jobs/{dense}/report", headers={"Accept": "text/html"})
    assert answer.status_code == 200
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(answer.content)
    return path


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_it_is_drawn_from_the_file_alone_and_has_no_serious_fault(
    report: Path, open_page: Callable[..., Any], screen: str, theme: str, picture: Callable[..., None]
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(
        report.as_uri(), viewport=DESKTOP if screen == "desktop" else PHONE, color_scheme=theme, offline=True
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.get_by_role("heading", name="Bits by layer").wait_for()
    charts = page.locator("canvas")
    assert charts.count() == 3
    for index in range(3):
        assert charts.nth(index).evaluate(_PAINTED) > 4
        assert charts.nth(index).get_attribute("aria-label")
    assert asked == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    found = Axe().run(page).response["violations"]
    serious = [fault for fault in found if fault["impact"] in {"serious", "critical"}]
    assert [(fault["id"], [node["target"] for node in fault["nodes"]]) for fault in serious] == []
    picture(page, f"report-{screen}-{theme}")


def test_the_service_shows_it_as_a_page_too(
    real_service: Any, dense: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{real_service.url}/jobs/{dense}/report")
    charts = page.locator("canvas")
    assert charts.count() == 3
    assert charts.first.evaluate(_PAINTED) > 4


def test_its_colours_follow_the_system_and_paper_is_white(
    report: Path, open_page: Callable[..., Any]
) -> None:
    page = open_page(report.as_uri(), color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.emulate_media(color_scheme="light")
    page.locator("html[data-theme=light]").wait_for(state="attached")
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    page.locator("html[data-theme=dark]").wait_for(state="attached")
    assert page.evaluate(background) == dark != light
    assert page.pdf().startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(background) == light
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(background) == dark


def test_layers_are_sorted_and_densities_chosen_by_keyboard(
    report: Path, open_page: Callable[..., Any]
) -> None:
    page = open_page(report.as_uri())
    table = page.get_by_role("region", name="All layers")
    weights = table.get_by_role("button", name="Weights")
    weights.focus()
    for order in ("ascending", "descending"):
        page.keyboard.press("Enter")
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == order
        values = table.locator("tbody tr td:nth-child(4)").evaluate_all(
            "cells => cells.map(cell => Number(cell.dataset.value))"
        )
        assert len(values) > 20
        assert values == sorted(values, reverse=order == "descending")
    choice = page.get_by_label("Hessian of")
    choice.focus()
    page.keyboard.press("ArrowDown")
    chosen = choice.input_value()
    assert chosen != "whole net"
    page.get_by_role("img", name=f"Density of the eigenvalues of {chosen}").wait_for()
