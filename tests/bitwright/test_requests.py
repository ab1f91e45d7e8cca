"""Answers of services that know more than this client."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from bitwright import Client
from bitwright.errors import InvalidRequestError, ServerError
from bitwright.operations.upload import LARGE
from bitwright.requests import read_answer, read_request
from quant_core.spec import AnalyzeSpec, BitPlan, PlanSpec, QuantizeSpec


def test_unknown_fields_are_passed_over_however_deep() -> None:
    rule = {"match": "fc", "pin": 8, "why": "x"}
    told = {"seed": 7, "novelty": 1, "budget": {"size": 0.2, "joules": 3}, "rules": [rule]}
    read = read_answer(QuantizeSpec, json.dumps(told).encode())
    assert (read.seed, read.budget.size, read.rules[0].pin) == (7, 0.2, 8)


def test_what_is_wrong_stays_wrong() -> None:
    with pytest.raises(ServerError):
        read_answer(QuantizeSpec, b'{"seed": "many", "novelty": 1}')
    with pytest.raises(ServerError):
        read_answer(BitPlan, b"[]")


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (QuantizeSpec, {"sizes": 0.2}, "no field 'sizes'; did you mean 'size'?"),
        (QuantizeSpec, {"max_dorp": "1%"}, "no field 'max_dorp'; did you mean 'max_drop'?"),
        (QuantizeSpec, {"exclud": "fc"}, "no field 'exclud'; did you mean 'exclude'?"),
        (AnalyzeSpec, {"probe": 3}, "no field 'probe'; did you mean 'probes'?"),
        (PlanSpec, {"pins": {"fc": 8}}, "no field 'pins'; did you mean 'pin'?"),
        (QuantizeSpec, {"watts": 3}, "no field 'watts'."),
        (
            QuantizeSpec,
            {"budget": {"sizes": 0.2}},
            "budget.sizes: there is no field 'sizes'; did you mean 'size'?",
        ),
    ],
)
def test_misspelt_options_are_named_with_what_may_be_meant(kind, given, said) -> None:
    with pytest.raises(InvalidRequestError) as told:
        read_request(kind, given)
    assert said in str(told.value)


def test_what_is_no_service_of_ours_is_told_by_every_question(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"a model")
    (tmp_path / "large.onnx").write_bytes(bytes(LARGE))
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    page = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>another server</html>"))
    with Client(transport=page, retries=0) as client:
        for ask in (
            client.health,
            client.jobs.list,
            lambda: client.jobs.get("abc"),
            lambda: client.quantize(tmp_path / "net.onnx", data=tmp_path / "x.npy"),
            lambda: client.quantize(tmp_path / "large.onnx", data=tmp_path / "x.npy"),
        ):
            with pytest.raises(ServerError, match="not what a Bitwright service tells"):
                ask()
