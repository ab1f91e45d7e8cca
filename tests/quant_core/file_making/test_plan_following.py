"""Plans are followed where something is lost, as far as others confirm it, and left where that leads astray."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest

from quant_core.file_making.choice import Choice
from quant_core.file_making.islands import Islands
from quant_core.file_making.plan_following import find_followed, follow_plan
from quant_core.pipeline import quantize
from quant_core.quantizers import QuantizedWeight
from quant_core.spec import QuantizeSpec
from tests.quant_core.export.networks import HEADER, parse


@pytest.mark.parametrize(
    ("islands", "wanted", "followed"),
    [
        (None, True, True),
        (None, False, False),
        (Islands(after=0.5), True, True),
        (Islands(after=0.5, harmless=240.0), True, True),
        (Islands(after=0.5, harmless=260.0), True, False),
    ],
)
def test_a_plan_is_followed_where_something_is_lost(monkeypatch, islands, wanted, followed):
    monkeypatch.setattr(
        "quant_core.file_making.plan_following.followed_places",
        lambda _graph, layers, _samples: [layer.name for layer in layers],
    )
    layers = [SimpleNamespace(name=name) for name in ("rounded", "float")]
    job = cast("Any", SimpleNamespace(layers=layers, graph=None))
    choice = cast("Any", SimpleNamespace(weights={"rounded": None}, plan=SimpleNamespace(predicted_loss=2.0)))
    places = find_followed(job, QuantizeSpec(follow=wanted), choice, cast("Any", None), islands)
    assert places == (["rounded"] if followed else [])


@pytest.mark.parametrize(("effort", "wanted"), [("balanced", "few"), ("best", "mixed")])
def test_more_is_followed_where_others_confirm_it(monkeypatch, effort, wanted):
    looks = []
    monkeypatch.setattr(
        "quant_core.file_making.plan_following.follow",
        lambda _plan, _samples, look, **_: looks.append(look) or {},
    )
    monkeypatch.setattr("quant_core.file_making.plan_following.best_look", lambda *_, **__: "mixed")
    job = cast("Any", SimpleNamespace(network=None))
    choice = Choice(cast("Any", SimpleNamespace(widths={})), cast("Any", None), {}, {})
    nothing = cast("Any", None)
    spec = QuantizeSpec(effort=effort)
    follow_plan(job, spec, choice, [nothing], nothing, nothing, lambda *_: None)
    assert looks == [wanted]


def test_codes_that_lead_astray_leave_the_file_as_if_nothing_had_been_followed(tmp_path, monkeypatch):
    net = "g (float[n,4,8,8] x) => (float[n,6,h,k] y) { a = Conv(x, w) r = Relu(a) y = Conv(r, v) }"
    onnx.save(parse(HEADER + net, w=(16, 4, 3, 3), v=(6, 16, 3, 3)), tmp_path / "net.onnx")
    x = np.random.default_rng(0).standard_normal((40, 4, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=x)
    spoilt = []

    def spoil(*args: Any) -> dict[str, QuantizedWeight]:
        found = follow_plan(*args)
        places = {place.layer.name for place in args[3]}
        spoilt.extend(places)
        return {
            name: replace(weight, codes=-weight.codes.clip(-7)) if name in places else weight
            for name, weight in found.items()
        }

    monkeypatch.setattr("quant_core.file_making.final_codes.follow_plan", spoil)
    asked = {"size": 0.9, "bits": [4], "workers": 1, "float_islands": 0}
    for folder, follow in (("followed", True), ("not", False)):
        spec = QuantizeSpec.model_validate(asked | {"follow": follow})
        quantize(tmp_path / "net.onnx", tmp_path / "samples.npz", spec, tmp_path / folder)
    assert spoilt
    files = [(tmp_path / folder / "model.onnx").read_bytes() for folder in ("followed", "not")]
    assert files[0] == files[1]
