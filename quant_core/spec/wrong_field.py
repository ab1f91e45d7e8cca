"""What is wrong with a request, said the same way by the service, the client and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from quant_core.spec.budget import AccuracyBand, Budget
from quant_core.spec.latency import LatencyTable
from quant_core.spec.layer_rule import LayerRule
from quant_core.spec.quoting import quote
from quant_core.spec.shorthand import SHORTHAND, place_as_written

_PARTS: Mapping[str, type[BaseModel]] = {
    "budget": Budget,
    "max_drop": AccuracyBand,
    "rules": LayerRule,
    "latency_table": LatencyTable,
}
"""Fields that have fields of their own."""

_KINDS = {
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of any use",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
"""What is asked for, by pydantic's names for what it is not."""

_BOUNDS = {
    "greater_than": ("small", "more than", "gt"),
    "greater_than_equal": ("small", "at least", "ge"),
    "less_than": ("large", "less than", "lt"),
    "less_than_equal": ("large", "at most", "le"),
}

_FORMS = {
    "bits": "a list of bit-widths, such as [2, 4, 8]",
    "weight_bits": "a list of bit-widths, such as [2, 4, 8]",
    "budget": 'limits by name, such as {"size": 0.18}',
    "confidence": "0.9 or 90%",
    "exclude": 'layer names or globs, such as ["stem*"]',
    "float_activations": 'layer names or globs, such as ["head"]',
    "latency_table": "what `bitwright profile` writes",
    "layer_activations": 'bits by layer name or glob, such as {"head": 16}',
    "loss_weights": 'factors by output name, such as {"boxes": 0.5}',
    "max_drop": "a drop such as 0.5%, or sqnr>=20dB, cosine>=0.99 or loss<=0.05",
    "pin": 'bits by layer name or glob, such as {"fc": 8}',
    "rules": 'a list of rules, such as [{"match": "fc", "pin": 8}]',
    "size": "a ratio such as 0.18 or bytes such as 2.5MB",
    "ties": 'lists of layers in a list, such as [["conv1", "conv2"], ["residual"]]',
}
"""How fields are written that are more than one number, word or truth value."""


def wrong_field(error: ValidationError, kind: type[BaseModel]) -> tuple[str, str]:
    """Say what is wrong with the first field that cannot be used.

    Args:
        error: What reading a request ended with.
        kind: Which request.

    Returns:
        What is wrong, without a full stop, and the path of the field, its parts joined by dots.
    """
    found = error.errors()
    # Where a field is missing, the one that is not known is most likely it.
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    place = ".".join(map(str, place_as_written(first)))
    if first["type"] != "extra_forbidden":
        return what_is_wrong(first), place
    name = str(first["loc"][-1])
    near = get_close_matches(name, sorted(_known(first["loc"][:-1], kind)), 1)
    return f"there is no field {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""), place


def what_is_wrong(found: Mapping[str, Any]) -> str:
    """Say what was found in one place, and what is asked for there.

    Args:
        found: One of the errors of a `ValidationError`.

    Returns:
        What is wrong, without a full stop.
    """
    kind, given, context = found["type"], quote(found["input"]), found.get("ctx", {})
    if kind == "missing":
        return "this is missing"
    if kind in _KINDS and (form := _form(found["loc"])):
        return f"{given} cannot be used here; write {form}"
    if kind == "literal_error":
        return f"{given} is not known here; write {context['expected']}"
    if kind in _BOUNDS and found["input"] == found["input"]:
        size, relation, bound = _BOUNDS[kind]
        limit = context[bound]
        return f"{given} is too {size}; write {relation} {limit if isinstance(limit, int) else f'{limit:g}'}"
    if kind in _BOUNDS:
        return f"{given} is not a number"
    if kind in _KINDS:
        return f"{given} is not {_KINDS[kind]}"
    if kind == "too_long":
        return f"there are {context['actual_length']}, and {context['max_length']} are the most"
    if kind == "string_pattern_mismatch":
        return f"{given} is not of the form {context['pattern']}"
    if kind == "string_too_short":
        return "the text is empty"
    if kind == "string_too_long":
        return f"the text is longer than {context['max_length']} characters"
    return str(found["msg"]).removeprefix("Value error, ")


def _form(place: tuple[int | str, ...]) -> str | None:
    """How the field of a place is written, where the place is not inside one of its parts."""
    names = _names(place)
    if len(names) > 1 and names[0] == "budget":
        del names[0]
    return _FORMS.get(names[0]) if len(names) == 1 else None


def _names(place: tuple[int | str, ...]) -> list[str]:
    return [part for part in place if isinstance(part, str)]


def _known(holder: tuple[int | str, ...], kind: type[BaseModel]) -> set[str]:
    if names := _names(holder):
        return set(_PARTS[names[-1]].model_fields) if names[-1] in _PARTS else set()
    known = set(kind.model_fields)
    return known | {*SHORTHAND, *(Budget.model_fields if "budget" in known else ())}
