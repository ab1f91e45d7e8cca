"""The Accept header, with the examples of RFC 9110 and what browsers send."""

from __future__ import annotations

import pytest

from app.api.accept import preferred

OFFERS = ("application/json", "text/html")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html", "text/html"),
        ("text/*", "text/html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", "text/html"),
        ("text/html, application/json", "application/json"),
        ("text/html;q=0.4, application/json;q=0.5", "application/json"),
        ("*/*;q=0.1, text/html;q=0", "application/json"),
        ("text/*;q=0.3, text/html;q=0.7, */*;q=0.5", "text/html"),
        ("Text/HTML; charset=utf-8", "text/html"),
        ("image/png", None),
        ("", None),
        ("text/html;q=nan, application/json;q=x", None),
    ],
)
def test_the_preferred_type_is_chosen(accept: str, chosen: str | None) -> None:
    assert preferred(accept, OFFERS) == chosen
