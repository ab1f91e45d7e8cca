"""What a request may say in fewer words, and where that stands in what the user wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails

from quant_core.spec.bits import FLOAT_BITS, WEIGHT_BITS
from quant_core.spec.budget import Budget
from quant_core.spec.field_error import FieldError

BUDGETS = tuple(Budget.model_fields)

_TO_RULE: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "pin": lambda bits: {"pin": bits},
    "exclude": lambda _: {"exclude": True},
    "float_activations": lambda _: {"activation_bits": FLOAT_BITS},
    "layer_activations": lambda bits: {"activation_bits": bits},
}
"""What each kind of rule by name says of its layers, in the order that rules are made of them."""

SHORTHAND = ("bits", *_TO_RULE)
"""Fields that requests are read with beside their own and those of the budget."""

_NAMES: JsonSchemaValue = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_DESCRIBED: Mapping[str, JsonSchemaValue] = {
    "bits": {
        "type": "array",
        "items": {"enum": [*WEIGHT_BITS, "float"]},
        "description": "`weight_bits` by a shorter name.",
    },
    "pin": {
        "type": "object",
        "additionalProperties": {"enum": [*WEIGHT_BITS, "float"]},
        "description": "Layer, weight or glob -> the only bit-width allowed. Short for rules with `pin`.",
    },
    "exclude": {
        **_NAMES,
        "description": "Layers, weights or globs that stay in float. Short for rules with `exclude`.",
    },
    "float_activations": {
        **_NAMES,
        "description": "Layers, weights or globs that run in float on packed weights. Short for rules with "
        "`activation_bits` 32.",
    },
    "layer_activations": {
        "type": "object",
        "additionalProperties": {"enum": [8, 16, FLOAT_BITS, "float"]},
        "description": "Layer, weight or glob -> bits of its activations. Short for rules with `activation_bits`.",
    },
}
"""The shorthand as JSON schemas."""


class _Entry(NamedTuple):
    """A rule by name: where it stands, whom it is about, and with how many bits."""

    place: tuple[int | str, ...]
    match: Any
    bits: Any


def expand_bits(data: dict[str, Any]) -> dict[str, Any]:
    """Read `bits` as `weight_bits`.

    Args:
        data: Fields of a request.

    Returns:
        The fields without the shorthand.

    Raises:
        FieldError: If there are both.
    """
    if "bits" in data and "weight_bits" in data:
        raise FieldError(("bits",), "give either bits or weight_bits, not both")
    return {"weight_bits" if name == "bits" else name: value for name, value in data.items()}


def expand_budget(data: dict[str, Any]) -> dict[str, Any]:
    """Read budgets by name.

    Args:
        data: Fields of a request.

    Returns:
        The fields with `budget` in place of its parts.

    Raises:
        FieldError: If there are both.
    """
    if given := [name for name in BUDGETS if data.get(name) is not None]:
        if "budget" in data:
            raise FieldError((given[0],), f"give either {given[0]} or budget, not both")
        data = data | {"budget": {name: data[name] for name in given}}
    return {name: value for name, value in data.items() if name not in BUDGETS}


def expand_rules(data: dict[str, Any]) -> dict[str, Any]:
    """Read rules by name.

    Args:
        data: Fields of a request.

    Returns:
        The fields with these rules behind those that are given in full.
    """
    made = [_TO_RULE[str(entry.place[0])](entry.bits) | {"match": entry.match} for entry in _entries(data)]
    rest = {name: value for name, value in data.items() if name not in _TO_RULE}
    rules = rest.get("rules", ())
    return rest | {"rules": [*rules, *made]} if made and isinstance(rules, list | tuple) else rest


def as_written(error: ValidationError, given: Any) -> ValidationError:
    """Name places as the user wrote them, such as `pin.fc` where a rule was made of it.

    Args:
        error: What reading a request ended with.
        given: The request as it came.

    Returns:
        The same error with these places.
    """
    if not isinstance(given, Mapping):
        return error
    found = [
        InitErrorDetails(
            type=one["type"], loc=_written(one["loc"], given), input=one["input"], ctx=one.get("ctx", {})
        )
        for one in error.errors()
    ]
    return ValidationError.from_exception_data(error.title, found)


def place_as_written(found: ErrorDetails) -> tuple[int | str, ...]:
    """Tell where an error lies; one that only the whole request shows names its field itself.

    Args:
        found: One of the errors of a `ValidationError`.

    Returns:
        The path of the field.
    """
    error, given = found.get("ctx", {}).get("error"), found["input"]
    if not isinstance(error, FieldError):
        return found["loc"]
    return found["loc"] + (_written(error.place, given) if isinstance(given, Mapping) else error.place)


def _entries(data: Mapping[str, Any]) -> list[_Entry]:
    found = []
    for name in _TO_RULE:
        value = data.get(name)
        if value is None:
            continue
        if name in {"pin", "layer_activations"}:
            if not isinstance(value, Mapping):
                raise _wrong("dict_type", (name,), value)
            for match, bits in value.items():
                if bits is None:
                    raise _wrong("int_type", (name, match), bits)
                found.append(_Entry((name, match), match, bits))
        elif isinstance(value, str):
            found.append(_Entry((name,), value, None))
        elif isinstance(value, list | tuple | set | frozenset):
            found += [_Entry((name, index), match, None) for index, match in enumerate(value)]
        else:
            raise _wrong("list_type", (name,), value)
    return found


def _wrong(
    kind: Literal["dict_type", "list_type", "int_type"], place: tuple[str, ...], value: Any
) -> ValidationError:
    return ValidationError.from_exception_data(
        "request", [InitErrorDetails(type=kind, loc=place, input=value)]
    )


def _written(place: tuple[int | str, ...], given: Mapping[str, Any]) -> tuple[int | str, ...]:
    match place:
        case ("weight_bits", *rest) if "bits" in given:
            return ("bits", *rest)
        case ("budget", *rest) if "budget" not in given:
            return tuple(rest)
        case ("rules", int(index), *_) if index >= (before := len(given.get("rules", ()))):
            return _entries(given)[index - before].place
    return place


@dataclass(frozen=True)
class _Wording:
    """The words of a request, which make no difference between two that ask for the same."""

    given: Mapping[str, Any] = field(default_factory=dict, compare=False)


class AsWritten(BaseModel):
    """A request whose errors name fields as they were written, shorthand included.

    Attributes:
        short_words: The shorthand that it is read with: names of `SHORTHAND` and of `BUDGETS`.
    """

    short_words: ClassVar[tuple[str, ...]] = ()
    _wording: _Wording = PrivateAttr(default_factory=_Wording)

    def place_of(self, where: str | None) -> str | None:
        """Say where in the request, as it was written, lies what an error of the engine names.

        Args:
            where: What the error names: a field, a budget, or a rule by its number, such as `rules.2`.

        Returns:
            The path, its parts joined by dots, such as `pin.fc*` where the rule was made of it; None if the error names
            no part of the request.
        """
        name, *rest = (where or "").split(".")
        given = self._wording.given
        if name == "rules":
            return ".".join(
                map(str, _written((name, *(int(part) for part in rest if part.isdecimal())), given))
            )
        if name in BUDGETS:
            return f"budget.{name}" if "budget" in given else name
        if name == "bits":
            return "weight_bits" if "weight_bits" in given else name
        return where if name in {*type(self).model_fields, *self.short_words} else None

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe the shorthand beside the fields, where the schema is of what is read.

        Args:
            core_schema: The model.
            handler: Makes schemas.

        Returns:
            The schema.
        """
        made = handler(core_schema)
        if handler.mode == "validation":
            budgets = handler.resolve_ref_schema(handler(Budget.__pydantic_core_schema__))["properties"]
            handler.resolve_ref_schema(made)["properties"] |= {
                name: _DESCRIBED.get(name) or budgets[name] | {"description": f"Short for `budget.{name}`."}
                for name in cls.short_words
            }
        return made

    @model_validator(mode="wrap")
    @classmethod
    def _places_as_written(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            made = handler(data)
        except ValidationError as error:
            raise as_written(error, data) from None
        if isinstance(data, Mapping):
            made._wording = _Wording(data)
        return made
