"""Whatever stands in a field, the answer names the field, what was found and what is asked for."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from quant_core.spec import AnalyzeSpec, PlanSpec, QuantizeSpec
from quant_core.spec.shorthand import BUDGETS, SHORTHAND
from quant_core.spec.wrong_field import what_is_wrong, wrong_field

_WRONG: tuple[Any, ...] = (
    True, -1, 7, 2.5, float("inf"), float("nan"), 10**400, "foo", "8,foo", None,
    [], ["x"], [["x"], "y"], [None], [[1, 2]], {}, {"a": 1}, {"a": None}, {"a": "foo"},
    [{"match": "x"}], [{"matsch": "x", "pin": 4}], [{"match": "x", "pin": [4]}], [{"match": ""}],
)  # fmt: skip


def _told(kind: type[BaseModel], given: dict[str, Any]) -> tuple[str, str] | None:
    try:
        kind.model_validate_json(json.dumps(given))
    except ValidationError as error:
        return wrong_field(error, kind)
    return None


@pytest.mark.parametrize("kind", [QuantizeSpec, AnalyzeSpec, PlanSpec])
def test_every_field_with_every_wrong_value_is_refused_in_words_of_our_own(kind: type[BaseModel]) -> None:
    refused = 0
    for field in {*kind.model_fields, *SHORTHAND, *BUDGETS} - {"confidence", "opset"}:
        for value in _WRONG:
            told = _told(kind, {field: value})
            if told is None:
                continue
            refused += 1
            message, place = told
            assert field in place.split(".") or field in message or place == "rules", (field, value, told)
            assert "nput should" not in message, (field, value, told)
            assert len(message) < 300, (field, value, told)
    assert refused > 100


@pytest.mark.parametrize(
    ("given", "place", "message"),
    [
        (
            {"ties": ["residual"]},
            "ties.0",
            "'residual' cannot be used here; write lists of layers in a list, such as [[",
        ),
        ({"exclude": 7}, "exclude", '7 cannot be used here; write layer names or globs, such as ["stem*"]'),
        ({"pin": ["fc"]}, "pin", '["fc"] cannot be used here; write bits by layer name or glob, such as {"fc": 8}'),
        ({"pin": {"fc": "foo"}}, "pin.fc", "'foo' is not a supported bit-width"),
        ({"pin": {"fc": None}}, "pin.fc", "null is not a whole number"),
        ({"pin": {"a": 4}, "exclude": ["b", 3]}, "exclude.1", "3 cannot be used here; write layer names"),
        ({"rules": [{"match": "a", "pin": 4}], "pin": {"b": 7}}, "pin.b", "7 is not a supported bit-width"),
        ({"rules": [{"match": "a", "pin": 7}], "pin": {"b": 4}}, "rules.0", "7 is not a supported bit-width"),
        ({"rules": [{"matsch": "a", "pin": 4}]}, "rules.0.matsch", "there is no field 'matsch'; did you mean 'match'?"),
        ({"rules": "fc"}, "rules", "'fc' cannot be used here; write a list of rules"),
        ({"layer_activations": {"fc": 4}}, "layer_activations.fc", "4 is nothing that activations can be given"),
        ({"bits": 4}, "bits", "4 cannot be used here; write a list of bit-widths, such as [2, 4, 8]"),
        ({"bits": [4, "x"]}, "bits.1", "'x' is not a supported bit-width"),
        ({"pin": {"fc": "9" * 5000}}, "pin.fc", f"'{'9' * 76}... is not a supported bit-width"),
        ({"bits": [10**400]}, "bits", f"1{'0' * 76}... is not a supported bit-width"),
        ({"weight_bits": [7]}, "weight_bits", "7 is not a supported bit-width"),
        ({"size": []}, "size", "[] cannot be used here; write a ratio such as 0.18"),
        ({"budget": {"size": True}}, "budget.size", "true cannot be used here; write a ratio"),
        ({"budget": {"sizes": 1}}, "budget.sizes", "there is no field 'sizes'; did you mean 'size'?"),
        ({"max_drop": {"metric": "drop"}}, "max_drop.limit", "this is missing"),
        ({"activation_bits": "foo"}, "activation_bits", "'foo' is nothing that activations can be given"),
        ({"loss_weights": {"boxes": None}}, "loss_weights.boxes", "null is not a number"),
        ({"seed": True}, "seed", "true is not a whole number"),
        ({"seed": -1}, "seed", "-1 is too small; write at least 0"),
        ({"foem_beta": 2}, "foem_beta", "2 is too large; write at most 1"),
        ({"held_back": float("nan")}, "held_back", "NaN is not a number"),
        ({"descent": "maybe"}, "descent", "'maybe' is not true or false"),
        ({"effort": "FAST"}, "effort", "'FAST' is not known here; write 'fast', 'balanced' or 'best'"),
        ({"device": 0}, "device", "0 is not a device; write auto, cpu, cuda or cuda:N"),
        ({"latency": "1ms"}, "latency", "a latency budget needs a latency_table"),
        ({"budget": {"latency": 1}}, "budget.latency", "a latency budget needs a latency_table"),
        ({"confidence": 0.9}, "confidence", "confidence says how surely max_drop is kept"),
        ({"opset": 20}, "opset", "ort-cpu files have the opset their operators need"),
        ({"target": "portable", "layer_activations": {"fc": 16}}, "layer_activations.fc", "16-bit activations are"),
        ({"target": "portable", "activation_bits": 16}, "activation_bits", "16-bit activations are"),
        ({"target": "tensorrt", "sparse": 0.01}, "sparse", "sparse is unpacked by operators that tensorrt"),
        ({"rounding": "nearest", "sparse": 0.01}, "sparse", "sparse finds outliers by GPTQ's errors"),
        ({"granularity": "block", "sparse": 0.01}, "sparse", "sparse keeps outliers of integers"),
        ({"trellis": True, "granularity": "block"}, "trellis", "a trellis codes integers"),
        ({"trellis": True, "target": "tensorrt"}, "trellis", "a trellis is decoded by operators"),
        ({"weight_format": "nvfp4", "bits": [8]}, "weight_format", "weight_format nvfp4 has 4 bits"),
        ({"weight_format": "nvfp4", "rounding": "brecq"}, "rounding", "rounding brecq tunes integer codes"),
        ({"allocation": "ompq", "activation_bits": [8, 16]}, "allocation", "ompq orders the bits of weights alone"),
        ({"target": "portable", "activation_bits": [8, 32]}, "activation_bits", "activation_bits are chosen layer by"),
        ({"bits": [4], "weight_bits": [4]}, "bits", "give either bits or weight_bits, not both"),
        ({"size": 0.2, "budget": {"size": 0.2}}, "size", "give either size or budget, not both"),
        ({"latency_table": []}, "latency_table", "[] cannot be used here; write what `bitwright profile` writes"),
    ],
)  # fmt: skip
def test_the_answer_says_where_what_and_what_instead(given: dict[str, Any], place: str, message: str) -> None:
    told = _told(QuantizeSpec, given)
    assert told is not None
    assert told[1] == place
    assert told[0].startswith(message)


def test_fields_of_python_values_are_named_alike() -> None:
    for wrong in ({"exclude": 7}, {"pin": {"fc": object()}}, {"ties": [("a", "b"), 3]}, {"bits": {2, 7}}):
        with pytest.raises(ValidationError) as told:
            QuantizeSpec.model_validate(wrong)
        message, place = wrong_field(told.value, QuantizeSpec)
        assert place.split(".")[0] == next(iter(wrong))
        assert "nput should" not in message


def test_names_may_come_as_any_collection() -> None:
    spec = QuantizeSpec.model_validate({"exclude": ("a", "b"), "float_activations": {"c"}})
    assert [rule.match for rule in spec.rules] == ["a", "b", "c"]


def test_too_many_and_misshapen_words_are_told_in_words_of_our_own() -> None:
    class Tags(BaseModel):
        tags: list[Annotated[str, Field(pattern="^[a-z]+$")]] = Field(max_length=2)

    for tags, message in (
        (["a", "b", "c"], "there are 3, and 2 are the most"),
        (["A"], "'A' is not of the form ^[a-z]+$"),
    ):
        with pytest.raises(ValidationError) as refused:
            Tags.model_validate({"tags": tags})
        assert what_is_wrong(refused.value.errors()[0]) == message
