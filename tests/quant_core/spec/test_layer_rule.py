"""What a rule says of a layer: whom it means, which bits it leaves, and what cannot be said at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from quant_core.spec import LayerRule
from quant_core.spec.bits import WEIGHT_BITS

ALL = {*WEIGHT_BITS, 32}


@pytest.mark.parametrize(
    ("written", "allowed", "effect"),
    [
        ({"pin": 4}, {4}, "pinned to 4"),
        ({"pin": "float"}, {32}, "pinned to float"),
        ({"exclude": True}, {32}, "excluded"),
        ({"min_bits": 5}, {5, 6, 8, 32}, "limited to at least 5"),
        ({"max_bits": 3}, {2, 3}, "limited to at most 3"),
        ({"min_bits": 3, "max_bits": 5}, {3, 4, 5}, "limited to at least 3 and at most 5"),
        ({"min_bits": 4, "max_bits": 4}, {4}, "limited to at least 4 and at most 4"),
        ({"activation_bits": 16}, ALL, "16 activations"),
        ({"pin": 4, "activation_bits": "float"}, {4}, "pinned to 4 with float activations"),
    ],
)
def test_bits_that_are_left(written: dict[str, Any], allowed: set[int], effect: str) -> None:
    rule = LayerRule.model_validate({"match": "x"} | written)
    assert {bits for bits in ALL if rule.allows(bits)} == allowed
    assert rule.effect == effect
    assert rule.narrows == (allowed != ALL)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({}, "exactly one of pin"),
        ({"pin": 4, "exclude": True}, "exactly one of pin"),
        ({"pin": 4, "min_bits": 4}, "exactly one of pin"),
        ({"exclude": True, "max_bits": 4}, "exactly one of pin"),
        ({"pin": 4, "min_bits": 2, "activation_bits": 16}, "exactly one of pin"),
        ({"exclude": True, "activation_bits": 8}, "leave activation_bits out"),
        ({"pin": 32, "activation_bits": 8}, "leave activation_bits out"),
        ({"min_bits": 6, "max_bits": 4}, "min_bits above max_bits"),
        ({"min_bits": "float", "max_bits": 8}, "min_bits above max_bits"),
    ],
)
def test_what_cannot_be_said_at_once(written: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        LayerRule.model_validate({"match": "x"} | written)


@pytest.mark.parametrize(
    ("match", "means"),
    [
        ("block.0.conv", True),
        ("block.0.weight", True),
        ("Conv", True),
        ("block.?.conv", True),
        ("*.weight", True),
        ("Con*", False),
        ("Block.0.conv", False),
        ("block", False),
    ],
)
def test_a_layer_is_meant_by_its_names_by_globs_of_them_and_by_its_operator(match: str, means: bool) -> None:
    layer = SimpleNamespace(name="block.0.conv", weight="block.0.weight", op="Conv")
    assert LayerRule(match=match, exclude=True).matches(layer) is means


def test_a_name_with_brackets_is_itself() -> None:
    layer = SimpleNamespace(name="block[0]", weight="w", op="Conv")
    assert LayerRule(match="block[0]", exclude=True).matches(layer)
