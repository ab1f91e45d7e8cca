"""Jobs whose layers get trellis codes: within the same bytes, told, taken up again, refused where nothing decodes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from rich.console import Console

from bitwright.cli.tables import print_summary
from quant_core.checkpoints import Checkpoints
from quant_core.debugging import debug
from quant_core.errors import CancelledError, InfeasibleBudgetError
from quant_core.file_making import file_maker
from quant_core.file_making.trellis_coding import (
    NO_TRELLIS,
    TrellisRoom,
    find_room,
    is_worth_its_room,
    settle_with_room,
    to_be_coded,
)
from quant_core.pipeline import quantize
from quant_core.preparation import prepare
from quant_core.spec import BitPlan, QuantizeSpec
from quant_core.spec.trials import PlanTrial
from quant_core.trials import Settled
from tests.quant_core.export.networks import HEADER, parse

LIMIT = 26_000
SPEC = {"bits": [2, 3, 4, 8], "size": LIMIT, "loss": "squared_error"}
SHAPES = {"stem": (64, 8, 3, 3), "middle": (96, 64, 3, 3), "last": (64, 96, 1, 1), "few": (4, 64, 1, 1)}
TEXT = """g (float[n,8,6,6] x) => (float[n,4,6,6] y) {
    a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, stem)
    r = Relu(a)
    b = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r, middle)
    q = Relu(b)
    c = Conv<kernel_shape=[1,1]>(q, last)
    s = Relu(c)
    y = Conv<kernel_shape=[1,1]>(s, few)
}"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    onnx.save(parse(HEADER + TEXT, **SHAPES), folder / "net.onnx")
    np.savez(folder / "samples.npz", x=rng.standard_normal((48, 8, 6, 6)).astype(np.float32))
    return folder / "net.onnx", folder / "samples.npz"


@pytest.fixture(scope="module")
def jobs(inputs, tmp_path_factory):
    found = {}
    for trellis in (True, False):
        out = tmp_path_factory.mktemp(f"trellis-{trellis}")
        spec = QuantizeSpec.model_validate(SPEC | {"trellis": trellis})
        found[trellis] = out, quantize(*inputs, spec, out)
    return found


def test_the_same_bytes_lose_less(jobs):
    (out, coded), (_, scalar) = jobs[True], jobs[False]
    assert {layer.weight for layer in coded.layers if layer.trellis} >= {"middle"}
    assert not any(layer.trellis for layer in scalar.layers)
    assert not next(layer for layer in coded.layers if layer.weight == "few").trellis
    assert coded.metrics.sqnr_db > scalar.metrics.sqnr_db + 0.3
    size = (out / "model.onnx").stat().st_size
    assert size == coded.model.quantized_bytes <= LIMIT
    assert coded.model.predicted_bytes == coded.plan.predicted_bytes
    assert coded.plan.predicted_bytes == pytest.approx(size, abs=150)
    assert coded.simulation.agreement_sqnr_db > 25
    assert {layer.kernel for layer in coded.layers} == {layer.kernel for layer in scalar.layers}


def test_people_are_told_of_trellises(jobs):
    out, report = jobs[True]
    assert "trellis" in (out / "report.html").read_text()
    console = Console(record=True, width=200)
    print_summary(report, console)
    assert "with trellis codes" in console.export_text()


def test_debugging_finds_the_layers(jobs, inputs):
    found = debug(inputs[0], jobs[True][0], inputs[1], worst=2, samples=4)
    assert not found.not_found
    assert len(found.layers) == len(SHAPES)


def test_an_attempt_that_was_stopped_goes_on(inputs, tmp_path):
    spec = QuantizeSpec.model_validate(SPEC | {"trellis": True, "effort": "fast"})

    def stop(progress):
        if progress.message.startswith("trellis codes"):
            raise CancelledError("enough")

    with pytest.raises(CancelledError):
        quantize(*inputs, spec, tmp_path / "first", stop, checkpoints=Checkpoints(tmp_path / "kept"))
    report = quantize(*inputs, spec, tmp_path / "second", checkpoints=Checkpoints(tmp_path / "kept"))
    assert any(layer.trellis for layer in report.layers)
    assert report.model.quantized_bytes <= LIMIT
    assert report.simulation.agreement_sqnr_db > 25


def test_codes_stay_scalar_where_there_is_no_room_to_decode(inputs, tmp_path, monkeypatch):
    whole = TrellisRoom.of
    monkeypatch.setattr(TrellisRoom, "of", lambda room, names: 10**6 * bool(names) + whole(room, names))
    monkeypatch.setattr(file_maker, "find_room", lambda *_: TrellisRoom({"middle": 1}, 1))
    report = quantize(
        *inputs, QuantizeSpec.model_validate(SPEC | {"trellis": True, "effort": "fast"}), tmp_path
    )
    assert not any(layer.trellis for layer in report.layers)
    assert NO_TRELLIS in report.warnings
    assert report.model.quantized_bytes <= LIMIT


@pytest.mark.parametrize(
    ("asked", "coded"),
    [
        ({"trellis": True}, True),
        ({}, False),
        ({"target": "portable", "trellis": True}, True),
        ({"target": "tensorrt", "bits": [8], "size": 0.5}, False),
        ({"bits": [6, 8], "trellis": True, "size": "60kB"}, False),
    ],
)
def test_who_gets_trellises(asked, coded, inputs):
    spec = QuantizeSpec.model_validate(SPEC | asked)
    job = prepare(*inputs, spec)
    room = find_room(job, spec)
    assert bool(room.layers) == coded
    if coded:
        assert room.whole == sum(room.layers.values()) + room.once
        small = replace(job, layers=tuple(layer for layer in job.layers if layer.weight != "middle"))
        assert not find_room(small, spec).layers


def test_all_that_is_decoded_takes_at_most_three_twentieths_of_a_bit_for_each_weight(inputs, monkeypatch):
    spec = QuantizeSpec.model_validate(SPEC | {"trellis": True})
    job = prepare(*inputs, spec)
    room = find_room(job, spec)
    weights = sum(layer.parameters for layer in job.layers if layer.name in room.layers)
    most = int(0.15 * weights / 8) - sum(room.layers.values())
    for once, coded in ((most, True), (most + 1, False)):
        monkeypatch.setattr("quant_core.file_making.trellis_coding.decoder_bytes", lambda _, once=once: once)
        assert bool(find_room(job, spec).layers) == coded


def settled(foretold, measured):
    plan = BitPlan.model_construct(predicted_loss=foretold)
    return Settled(plan, (PlanTrial.model_construct(measured_loss=measured, chosen=True),), ())


@pytest.mark.parametrize(
    ("foretold", "measured", "worth"), [(1.1, 1.1, True), (1.3, 1.1, False), (1.1, 1.3, False)]
)
def test_bytes_are_kept_free_where_they_gain_more_than_elsewhere(foretold, measured, worth):
    assert is_worth_its_room(settled(foretold, measured), settled(1.0, 1.0)) == worth


@pytest.mark.parametrize(
    ("room", "limits", "asked", "kept"),
    [
        (TrellisRoom({"a": 10}, 5), {"bytes": 100.0}, [100.0, 85.0], True),
        (TrellisRoom(), {"bytes": 100.0}, [100.0], True),
        (TrellisRoom({"a": 10}, 5), {}, [None], True),
        (TrellisRoom({"a": 40}, 20), {"bytes": 100.0}, [100.0, 40.0], False),
        (TrellisRoom({"a": 60}, 20), {"bytes": 100.0}, [100.0, 20.0], False),
    ],
    ids=["worth it", "none to code", "no limit", "not worth it", "out of reach"],
)
def test_a_plan_is_settled_again_only_where_bytes_are_kept_free(room, limits, asked, kept):
    seen = []

    def settle(within):
        size = within.get("bytes")
        seen.append(size)
        if size is not None and size < 30:
            raise InfeasibleBudgetError("too small", remedy="more")
        return settled(1.0, 1.0) if size is None else settled(100 / size, 100 / size)

    found, left = settle_with_room(settle, limits, room)
    assert seen == asked
    assert left == (room if kept else TrellisRoom())
    assert found.plan.predicted_loss == (100 / asked[-1] if kept and asked[-1] else 1.0)


@pytest.mark.parametrize(("size", "coded"), [(95, True), (103, False)])
def test_a_layer_is_coded_that_gains_more_than_the_bytes_of_decoding_would_elsewhere(
    size, coded, monkeypatch
):
    """A byte for each of 11,000 weights takes 8 ln 4 of the loss away; a fifth of half of it is worth 99 bytes."""
    monkeypatch.setattr("quant_core.file_making.trellis_coding.can_be_coded", lambda *_: True)
    names = ["here", "there"]
    layers = [
        SimpleNamespace(name=name, parameters=count)
        for name, count in zip(names, (10_000, 1000), strict=True)
    ]
    rows = [SimpleNamespace(name=name, width=2, expected_loss=None) for name in names]
    choice = SimpleNamespace(
        plan=SimpleNamespace(layers=rows),
        weights=dict.fromkeys(names),
        placement=SimpleNamespace(forms=dict.fromkeys(names, "static")),
    )
    problem = SimpleNamespace(scores={"here": {2: 1.0}, "there": {2: 1.0}})
    assert bool(to_be_coded(layers, choice, problem, TrellisRoom({"here": size}))) == coded
