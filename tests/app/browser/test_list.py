"""Finding a job among more than a page holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.app.service import MODEL

pytestmark = pytest.mark.browser

DATA = b"PK\x05\x06" + bytes(18)


@pytest.fixture(scope="module")
def crowded(make_server: Callable[..., Any]) -> Any:
    """A service with one job that runs and 30 that wait, the first of them with a name and a tag of its own."""
    service = make_server()
    service.wait_until_running(service.submit(seed=1))
    for number in range(30):
        files = {
            "model": ("needle.onnx" if number == 0 else f"hay{number}.onnx", MODEL),
            "data": ("d.npz", DATA),
        }
        tags = ["odd", "first"] if number == 0 else ["odd"] if number % 2 else []
        assert service.http.post("/quantize", params={"tag": tags}, files=files).status_code == 202
    return service


def test_words_and_tags_and_states_are_looked_for_among_all_jobs(
    crowded: Any, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{crowded.url}/#/jobs")
    rows = page.locator("table.jobs tbody tr")
    page.get_by_text("1 to 25 of 31").wait_for()
    assert "needle" not in page.locator("table.jobs").inner_text()
    page.get_by_label("Model, samples, tag or id").fill("NEEDLE d.npz")
    page.get_by_role("link", name="needle.onnx").wait_for()
    assert rows.count() == 1
    assert "local" in rows.first.inner_text()
    page.get_by_label("Model, samples, tag or id").fill("nothing of this name")
    page.get_by_text("No job matches").wait_for()
    page.get_by_role("link", name="Show all jobs").click()
    page.get_by_text("1 to 25 of 31").wait_for()

    page.get_by_role("button", name="Only jobs with the tag odd").first.click()
    page.get_by_role("link", name="needle.onnx").wait_for()
    assert rows.count() == 16
    page.get_by_role("button", name="Only jobs with the tag first").click()
    page.get_by_role("link", name="hay1.onnx").wait_for(state="detached")
    assert rows.count() == 1
    page.get_by_role("button", name="Any jobs, not only first").click()
    page.get_by_role("button", name="Any jobs, not only odd").click()
    page.get_by_text("1 to 25 of 31").wait_for()
    page.get_by_role("button", name="Older").click()
    page.get_by_role("link", name="needle.onnx").wait_for()
    page.get_by_label("State").select_option("running")
    page.get_by_role("link", name="needle.onnx").wait_for(state="detached")
    page.get_by_role("link", name="m.onnx").wait_for()
    assert rows.count() == 1


def test_nothing_yet_says_what_to_do(make_server: Callable[..., Any], open_page: Callable[..., Any]) -> None:
    page = open_page(f"{make_server().url}/")
    page.get_by_role("heading", name="No job yet").wait_for()
    page.get_by_role("link", name="Send a model").click()
    page.get_by_role("heading", name="New job").wait_for()


def test_who_waits_for_the_list_is_told_so(server: Any, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{server.url}/")
    page.get_by_role("heading", name="Jobs").wait_for()
    held: list[Any] = []
    let_go = False
    page.route("**/jobs?*", lambda route: route.continue_() if let_go else held.append(route))
    page.reload()
    page.get_by_text("Loading").wait_for()
    let_go = True
    for route in held:
        route.continue_()
    page.get_by_role("heading", name="Jobs").wait_for()
    page.get_by_text("Loading").wait_for(state="detached")


def test_fields_stand_in_line_and_states_at_the_edge_of_a_phone(
    crowded: Any, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{crowded.url}/#/jobs", viewport={"width": 390, "height": 844})
    page.get_by_text("1 to 25 of 31").wait_for()
    words = page.get_by_label("Model, samples, tag or id").bounding_box()
    state = page.locator(".filters select").bounding_box()
    assert (words["y"], words["height"]) == (state["y"], state["height"])
    edges = {
        round(badge.bounding_box()["x"] + badge.bounding_box()["width"])
        for badge in page.locator(".jobs .badge-queued").all()[:5]
    }
    assert len(edges) == 1
