"""What the engine refuses in a request is named as the request was written."""

from __future__ import annotations

from typing import Any

import pytest

from quant_core.spec import AnalyzeSpec, LayerRule, PlanSpec, QuantizeSpec


@pytest.mark.parametrize(
    ("given", "where", "place"),
    [
        ({"pin": {"fc": 8, "stem*": 4}}, "rules.1", "pin.stem*"),
        ({"exclude": ["a", "b"]}, "rules.1", "exclude.1"),
        ({"exclude": "a"}, "rules.0", "exclude"),
        ({"pin": {"net.fc": 8}}, "rules.0", "pin.net.fc"),
        ({"layer_activations": {"head": 16}}, "rules.0", "layer_activations.head"),
        ({"rules": [{"match": "a", "pin": 4}], "pin": {"b": 4}}, "rules.0", "rules.0"),
        ({"rules": [{"match": "a", "pin": 4}], "pin": {"b": 4}}, "rules.1", "pin.b"),
        ({"size": 0.2}, "size", "size"),
        ({}, "size", "size"),
        ({"budget": {"size": 0.2}}, "size", "budget.size"),
        ({"bits": [8]}, "bits", "bits"),
        ({"weight_bits": [8]}, "bits", "weight_bits"),
        ({"pin": {"fc": 8}}, "pin.fc", "pin.fc"),
        ({}, "device", "device"),
        ({}, "layer3.conv", None),
        ({}, "samples.npz", None),
        ({}, None, None),
    ],
)
def test_places_are_those_of_the_words_that_were_used(
    given: dict[str, Any], where: str | None, place: str | None
) -> None:
    assert QuantizeSpec.model_validate(given).place_of(where) == place


def test_every_request_knows_its_words() -> None:
    assert AnalyzeSpec.model_validate({"exclude": ["x"]}).place_of("rules.0") == "exclude.0"
    assert PlanSpec.model_validate_json('{"pin": {"fc": 8}}').place_of("rules.0") == "pin.fc"
    assert QuantizeSpec(rules=(LayerRule(match="fc", pin=8),)).place_of("rules.0") == "rules.0"


def test_words_make_no_difference_between_requests() -> None:
    short = QuantizeSpec.model_validate({"pin": {"fc": 8}, "size": 0.2})
    full = QuantizeSpec.model_validate_json(short.model_dump_json())
    assert short == full
    assert short.model_dump() == full.model_dump()
    assert short.model_copy(update={"seed": 3}).place_of("rules.0") == "pin.fc"
    assert full.place_of("rules.0") == "rules.0"
