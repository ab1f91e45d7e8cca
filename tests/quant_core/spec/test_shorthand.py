"""What is said in fewer words is what is said in full."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from quant_core.spec import AnalyzeSpec, PlanSpec, QuantizeSpec
from quant_core.spec.shorthand import BUDGETS


def test_rules_by_name_stand_behind_those_in_full_in_one_order() -> None:
    full: list[dict[str, Any]] = [
        {"match": "first", "pin": 4},
        {"match": "fc", "pin": 8},
        {"match": "stem*", "pin": "float"},
        {"match": "a", "exclude": True},
        {"match": "b", "exclude": True},
        {"match": "head", "activation_bits": 32},
        {"match": "tail", "activation_bits": 16},
    ]
    short = {
        "layer_activations": {"tail": 16},
        "float_activations": "head",
        "exclude": ("a", "b"),
        "pin": {"fc": 8, "stem*": "float"},
        "rules": full[:1],
    }
    assert QuantizeSpec.model_validate(short) == QuantizeSpec.model_validate({"rules": full})


def test_bits_and_budgets_by_name() -> None:
    short = QuantizeSpec.model_validate(
        {"bits": [4, "float"], "size": 0.2, "effective_bits": 5, "bops": None}
    )
    full = {"weight_bits": [4, "float"], "budget": {"size": 0.2, "effective_bits": 5}}
    assert short == QuantizeSpec.model_validate(full)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"bits": [4], "weight_bits": [4]}, "either bits or weight_bits"),
        ({"bops": 0.1, "budget": {"size": 0.2}}, "either bops or budget"),
    ],
)
def test_the_same_thing_twice_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        QuantizeSpec.model_validate(given)


@pytest.mark.parametrize("kind", [QuantizeSpec, PlanSpec, AnalyzeSpec])
def test_schemas_tell_the_words_where_a_request_is_read_and_not_where_it_is_written(
    kind: type[QuantizeSpec] | type[PlanSpec] | type[AnalyzeSpec],
) -> None:
    read, written = (
        kind.model_json_schema(mode=mode)["properties"] for mode in ("validation", "serialization")
    )
    assert set(read) - set(written) == set(kind.short_words)
    for name in set(kind.short_words) & set(BUDGETS):
        assert read[name]["description"] == f"Short for `budget.{name}`."


def test_seconds_without_end_are_left_out() -> None:
    """JSON has no infinity: a job would have been stored without what was asked for."""
    with pytest.raises(ValidationError, match="finite"):
        AnalyzeSpec.model_validate({"seconds": float("inf")})
    assert AnalyzeSpec.model_validate({"seconds": None}).seconds is None
