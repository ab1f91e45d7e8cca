"""The page's files over HTTP."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app.web.page import page_paths
from quant_core.report.page import built_file


@pytest.mark.parametrize("address", sorted(page_paths()))
def test_a_file_comes_with_a_policy_and_is_not_sent_twice(server: Any, address: str) -> None:
    first = server.http.get(address)
    assert first.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in first.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert "unsafe" not in str(policy)
    again = server.http.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert not again.content
    assert server.http.get(address, headers={"If-None-Match": '"another"'}).status_code == 200
    for answer in (first, again):
        assert answer.headers["content-security-policy"] == first.headers["content-security-policy"]
        assert answer.headers["etag"] == first.headers["etag"]
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["vary"] == "Accept-Encoding"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_it_is_packed_only_for_those_who_can_unpack(server: Any) -> None:
    plain = server.http.get("/page.js", headers={"Accept-Encoding": "identity"})
    packed = server.http.get("/page.js", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.content == packed.content
    for address, kind in (("/", "html"), ("/page.js", "javascript"), ("/index.css", "css")):
        for encoding in ("identity", "gzip"):
            answer = server.http.get(address, headers={"Accept-Encoding": encoding})
            assert answer.headers["content-type"] == f"text/{kind}; charset=utf-8"
    assert int(packed.headers["content-length"]) < len(plain.content) / 2


def test_the_page_needs_nothing_from_elsewhere(server: Any) -> None:
    page = server.http.get("/").text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert addresses
    assert all(address.startswith("./") for address in addresses)
    assert not re.findall(r"<script(?![^>]* src=)|<style|style=", page)


def test_page_and_report_are_built_from_the_same_charts(server: Any) -> None:
    page, report = server.http.get("/page.js").text, built_file("report.js")
    for words in ("increase of the loss", "layers, from input to output", "eigenvalue", "size of the file"):
        assert words in page
        assert words in report
    colours = re.findall(r"--[a-z]+-?[0-9]*:#[0-9a-f]+", server.http.get("/index.css").text)
    assert len(colours) > 50
    assert all(colour in built_file("report.css") for colour in colours)
