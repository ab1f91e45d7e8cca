"""Everyone can use the page: accessibility, themes, small screens, keys of several owners."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser

DESKTOP = {"width": 1200, "height": 850}
PHONE = {"width": 390, "height": 844}


def _views(job: str, other: str) -> dict[str, tuple[str, str]]:
    """Address of each view, and a heading that tells that it is there."""
    return {
        "jobs": ("#/jobs", "Jobs"),
        "new": ("#/new", "New job"),
        "result": (f"#/jobs/{job}", "Bits of the layers, and what they cost"),
        "compare": (f"#/compare?jobs={job},{other}", "Compare"),
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["desktop", "phone"])
@pytest.mark.parametrize("view", ["jobs", "new", "result", "compare"])
def test_no_serious_fault_and_a_picture(
    real_service: Any,
    finished: str,
    dense: str,
    open_page: Callable[..., Any],
    picture: Callable[..., None],
    view: str,
    screen: str,
    theme: str,
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    address, heading = _views(finished, dense)[view]
    size = DESKTOP if screen == "desktop" else PHONE
    page = open_page(f"{real_service.url}/{address}", viewport=size, color_scheme=theme)
    page.get_by_role("heading", name=heading, exact=True).wait_for()
    found = Axe().run(page).response["violations"]
    serious = [fault for fault in found if fault["impact"] in {"serious", "critical"}]
    assert [(fault["id"], [node["target"] for node in fault["nodes"]]) for fault in serious] == []
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0, "the page is wider than the screen"
    picture(page, f"{view}-{screen}-{theme}")


def test_a_failure_fits_the_narrowest_screen(server: Any, open_page: Callable[..., Any]) -> None:
    job = server.submit(seed=5)
    server.wait_for(job, "failed")
    page = open_page(f"{server.url}/#/jobs/{job}", viewport={"width": 320, "height": 640})
    page.get_by_role("alert").wait_for()
    page.evaluate(
        "document.querySelector('.problem-message').textContent = 'n'.repeat(300)"
    )  # as names can be
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_keyboard_reaches_everything(
    real_service: Any, finished: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{real_service.url}/#/jobs/{finished}")
    page.get_by_role("heading", name="Bits of the layers, and what they cost").wait_for()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(({ ariaLabel, textContent, type }) => ariaLabel || textContent || type)(document.activeElement)"
            )
        )
    for name in (
        "Skip to the content",
        "New job",
        "Dark theme",
        "Download the model",
        "Make this one",
        "range",
    ):
        assert name in reached


def test_a_chosen_theme_stays(real_service: Any, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{real_service.url}/", color_scheme="light")
    page.get_by_role("button", name="Dark theme").click()
    page.reload()
    page.get_by_role("button", name="Light theme").wait_for()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_owners_see_their_own_jobs_alone(
    make_server: Callable[..., Any], open_page: Callable[..., Any]
) -> None:
    service = make_server(BITWRIGHT_KEYS="on")
    alice, bob = (_new_key(service, name) for name in ("alice", "bob"))
    service.http.headers["Authorization"] = f"Bearer {alice}"
    job = service.submit()
    service.wait_for(job, "succeeded")

    def signed_in(key: str, address: str) -> Any:
        page = open_page(f"{service.url}/{address}", allow=("401", "404"))
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        return page

    mine = signed_in(alice, "#/jobs")
    mine.get_by_role("link", name="m.onnx").wait_for()
    assert mine.get_by_role("cell", name="alice").count() == 1
    theirs = signed_in(bob, "#/jobs")
    theirs.get_by_role("heading", name="No job yet").wait_for()
    assert job not in theirs.content()
    directly = signed_in(bob, f"#/jobs/{job}")
    directly.get_by_role("alert").wait_for()
    assert "m.onnx" not in directly.content()
    mine.get_by_role("button", name="Sign out").click()
    mine.get_by_role("heading", name="Sign in").wait_for()
    assert job not in mine.content()


def test_too_many_requests_are_made_up_for_later(
    make_server: Callable[..., Any], open_page: Callable[..., Any]
) -> None:
    service = make_server(BITWRIGHT_KEYS="on")
    page = open_page(f"{service.url}/#/jobs", allow=("401", "429"))
    page.get_by_label("API key").fill(_new_key(service, "hasty", "--requests-per-minute", "20"))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="No job yet").wait_for()
    for _ in range(20):
        page.evaluate(
            "fetch('jobs', {headers: {Authorization: `Bearer ${sessionStorage['bitwright-key']}`}})"
        )
    page.get_by_label("State").select_option("failed")
    page.get_by_text("The page goes on by itself in").wait_for()
    page.get_by_text("No job matches").wait_for()
    page.get_by_text("The page goes on by itself in").wait_for(state="detached")


@pytest.mark.parametrize(
    ("address", "shown"), [("#/jobs/%", "There is no job of this id."), ("#/nowhere", "No such page")]
)
def test_an_address_that_leads_nowhere_says_so(
    server: Any, open_page: Callable[..., Any], address: str, shown: str
) -> None:
    open_page(f"{server.url}/{address}", allow=("404",)).get_by_text(shown).wait_for()


def _new_key(service: Any, name: str, *options: str) -> str:
    command = [sys.executable, "-m", "bitwright", "admin", "keys", "create", name, *options]
    made = subprocess.run(
        [*command, "--data-dir", str(service.folder)], capture_output=True, text=True, check=True
    )
    return made.stdout.split()[-1]
