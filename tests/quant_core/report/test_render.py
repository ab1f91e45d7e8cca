from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from quant_core.report import render_html, write_report
from quant_core.report.layer_table import bit_shares
from quant_core.report.page import built_file
from quant_core.spec import Report
from quant_core.spec.spectrum import SpectrumEntry, SpectrumTable

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}&quot;'\"\u2028"


class Page(HTMLParser):
    """What a browser would see: elements with attributes, scripts, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.text = ""
        self._inside: str | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag == "style":
            self.styles.append("")

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self._inside == "style":
            self.styles[-1] += data
        else:
            self.text += data

    @property
    def figures(self):
        return next(json.loads(t) for a, t in self.scripts if a.get("type") == "application/json")


@pytest.mark.parametrize("depth", [1, 20, 300])
def test_every_layer_is_drawn_and_listed(job, depth):
    page = Page(render_html(*job(depth)))
    assert len(page.figures["layers"]) == depth
    assert sum(tag == "tr" for tag, _ in page.elements) > 2 * depth
    pictures = [a for t, a in page.elements if t == "canvas"]
    assert {a["data-chart"] for a in pictures} == set(page.figures)
    assert all(a["role"] == "img" and a["aria-label"] for a in pictures)


def test_a_report_is_small(job):
    assert len(render_html(*job(20)).encode()) < 300_000
    assert len(render_html(*job(300)).encode()) < 600_000


def test_the_page_holds_the_headline_numbers(job):
    report, table, front = job(20, warnings=("Few samples were given.",))
    text = Page(render_html(report, table, front)).text
    for expected in (
        "resnet20_cifar10.onnx",
        "92.08 %",
        "91.63 %",
        "−0.45 points",
        "21.4 dB",
        "1.31 ms",
        "620 µs",
    ):
        assert expected in text
    for expected in (
        "2.11× faster",
        "Few samples were given.",
        "stem*: excluded",
        "fc: pinned to 8",
        "proven optimal",
    ):
        assert expected in text
    assert f"{report.model.quantized_bytes:,} bytes" in text


def test_layers_of_two_widths_count_at_both(job):
    report, _, _ = job()
    two = {"parameters": 1000, "weight_bits": 5, "narrow_bits": 3, "narrow_share": 0.75}
    one = {"parameters": 1000, "weight_bits": 3}
    layers = [layer.model_copy(update=told) for layer, told in zip(report.layers, (two, one), strict=False)]
    found = bit_shares(report.model_copy(update={"layers": tuple(layers)}))
    assert [(share.bits, share.layers, share.weights) for share in found] == [
        (3, "2 layers", "88 %"),
        (5, "1 layer", "12 %"),
    ]


def test_nothing_is_fetched_and_only_our_script_and_style_may_be_used(job):
    html = render_html(*job(3))
    page = Page(html)
    assert not any({"src", "href", "action", "style"} & set(attributes) for _, attributes in page.elements)
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    scripts = [text for attributes, text in page.scripts if "type" not in attributes]
    for rule, texts in (("script-src", scripts), ("style-src", page.styles)):
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert len(hashes) == 1
        assert re.findall(r"'sha256-([^']+)'", rules[rule]) == hashes
        assert "unsafe" not in rules[rule]
    assert scripts == [built_file("report.js")]
    assert not re.search(r"@import|url\(", page.styles[0])
    assert "plotly" not in html.lower()


def test_hostile_names_stay_text(job):
    plain = Page(render_html(*job(4)))
    arguments = {"name": HOSTILE, "layer_name": lambda k: f"{k}{HOSTILE}", "warnings": (HOSTILE,)}
    page = Page(render_html(*job(4, **arguments)))
    assert [tag for tag, _ in page.elements].count("script") == [tag for tag, _ in plain.elements].count(
        "script"
    )
    assert not any(tag == "img" for tag, _ in page.elements)
    assert (
        page.text.count("<img src=x onerror=alert(2)>{{ 7 * 7 }}&quot;") >= 6
    )  # title, heading, warning, layers
    assert page.figures["layers"][0]["name"] == f"0{HOSTILE}"


@pytest.mark.parametrize("metric", ["top1", "top1_agreement", "mean_cosine"])
@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("lossless", [True, False])
def test_every_kind_of_job_can_be_told(job, metric, traced, lossless):
    page = Page(render_html(*job(5, metric=metric, traced=traced, lossless=lossless)))
    assert all((bar["trace"] is not None) == traced for bar in page.figures["layers"])
    assert "nan" not in page.text.lower()


def test_what_is_written_reads_back(job, tmp_path):
    report, table, front = job(6)
    json_path, html_path = write_report(report, table, front, tmp_path)
    assert Report.model_validate_json(json_path.read_text(encoding="utf-8")) == report
    raw = json.loads(json_path.read_text(encoding="utf-8"))
    assert raw["metrics"]["float"] == 0.9208
    assert html_path.read_text(encoding="utf-8") == render_html(report, table, front)


def test_same_report_same_bytes(job):
    assert render_html(*job(7)) == render_html(*job(7))


def test_the_page_says_where_error_enters_and_how_sure_the_metric_is(job):
    report, table, front = job(6)
    metrics = report.metrics.model_copy(
        update={"interval": (0.9012, 0.9299), "change_interval": (-0.0123, 0.0031)}
    )
    first, *rest = report.layers
    noisy = first.model_copy(update={"sqnr_db": 17.25, "own_sqnr_db": 34.5})
    report = report.model_copy(update={"metrics": metrics, "layers": (noisy, *rest)})
    text = Page(render_html(report, table, front)).text
    assert "17.2 dB" in text
    assert "alone 34.5 dB" in text
    assert "95 % interval 90.12 % to 92.99 %" in text
    assert "(95 % interval −1.23 to +0.31)" in text


def test_densities_are_shown_where_they_were_estimated(job):
    entry = SpectrumEntry(
        name="whole net", parameters=99, values=((0.123456789, 2.0),), weights=((0.5, 0.5),),
        smallest=0.123456789, largest=2.0, trace=100.0, frobenius=None,
    )  # fmt: skip
    densities = SpectrumTable(loss="kl", samples=8, seed=0, spectra=(entry,))
    page = Page(render_html(*job(3), densities))
    assert page.figures["spectra"][0]["values"] == [[0.123457, 2.0]]
    assert "spectrum" in {a.get("data-chart") for t, a in page.elements if t == "canvas"}
    assert "0.1235" in page.text
    assert "Eigenvalues" not in Page(render_html(*job(3))).text
