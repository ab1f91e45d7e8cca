"""Answers of services that know more than this client."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from bitwright.requests import read_answer
from quant_core.spec import BitPlan, QuantizeSpec


def test_unknown_fields_are_passed_over_however_deep() -> None:
    rule = {"match": "fc", "pin": 8, "why": "x"}
    told = {"seed": 7, "novelty": 1, "budget": {"size": 0.2, "joules": 3}, "rules": [rule]}
    read = read_answer(QuantizeSpec, json.dumps(told).encode())
    assert (read.seed, read.budget.size, read.rules[0].pin) == (7, 0.2, 8)


def test_what_is_wrong_stays_wrong() -> None:
    with pytest.raises(ValidationError):
        read_answer(QuantizeSpec, b'{"seed": "many", "novelty": 1}')
    with pytest.raises(ValidationError):
        read_answer(BitPlan, b"[]")
