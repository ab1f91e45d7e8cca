from __future__ import annotations

import json
import re

from quant_core.report.spectrum_page import render_spectrum
from quant_core.spec.spectrum import SpectrumEntry, SpectrumTable


def entry(name: str, values: tuple[float, ...], *, finite: bool = True) -> SpectrumEntry:
    return SpectrumEntry(
        name=name,
        parameters=1234,
        values=(values,),
        weights=(tuple(1 / len(values) for _ in values),),
        smallest=min(values) if finite else None,
        largest=max(values) if finite else None,
        trace=sum(values) if finite else None,
        frobenius=None,
    )


def page(*entries: SpectrumEntry) -> str:
    return render_spectrum("net", SpectrumTable(loss="kl", samples=8, seed=0, spectra=entries))


def test_what_has_a_density_is_drawn_and_everything_is_listed() -> None:
    html = page(entry("whole net", (-1.0, 5.0)), entry("<conv>", (1.0, 3.0)), entry("flat", (2.0,)))
    found = re.search(r'id="figures">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    assert [one["name"] for one in json.loads(found[1])["spectra"]] == ["whole net", "<conv>"]
    assert html.count("<option>") == 2
    assert "&lt;conv&gt;" in html
    assert html.count("1,234") == 3


def test_nothing_is_drawn_of_nothing() -> None:
    html = page(entry("whole net", (1.0, 2.0), finite=False))
    assert "<canvas" not in html
    assert "–" in html
