"""Puts what docstrings say of a model's fields into its schema, where OpenAPI's readers look for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from quant_core.spec.budget import Budget

_SHORT = re.compile(r"Short for `budget\.(\w+)`\.")
_FIELD = re.compile(r"^(\w+): (.*)$")
_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
"""Pydantic leaves its own names for bounds on numbers that may be null."""


def describe(schemas: dict[str, dict[str, Any]]) -> None:
    """Give every property of every schema a description, and examples their nulls back.

    Args:
        schemas: Schemas by name, of pydantic models whose docstrings list their attributes; changed in place.
    """
    models = {model.__name__: model for model in _models(BaseModel)}
    for name, schema in schemas.items():
        model = models.get(re.sub(r"-(?:Input|Output)$", "", name))
        if model is None or "properties" not in schema:
            continue
        extra = model.model_config.get("json_schema_extra")
        if isinstance(extra, dict) and "example" in extra:
            schema["example"] = extra["example"]  # as it is: FastAPI leaves out what is null
        meanings = attributes(model)
        aliases = {field.alias: name for name, field in model.model_fields.items() if field.alias}
        for title, described in schema["properties"].items():
            meaning = meanings.get(aliases.get(title, title))
            if meaning and "description" not in described:
                if "$ref" in described:  # what stands beside a reference is not read everywhere
                    described["allOf"] = [{"$ref": described.pop("$ref")}]
                described["description"] = meaning
            if short := _SHORT.fullmatch(described.get("description", "")):
                described["description"] += f" {attributes(Budget)[short[1]]}"
        schema["description"] = schema.get("description", "").partition("Attributes:")[0].strip()
    _name_bounds(schemas)


def _name_bounds(part: Any) -> None:
    if isinstance(part, list):
        for one in part:
            _name_bounds(one)
    elif isinstance(part, dict):
        of_numbers = part.get("type") in ("number", "integer")  # also a field of this name, which is a schema
        for own, name in _BOUNDS.items():
            if of_numbers and own in part:
                part[name] = part.pop(own)
            elif "anyOf" in part:  # what it may be written as has bounds of its own
                part.pop(own, None)
        for one in part.values():
            _name_bounds(one)


def attributes(model: type) -> dict[str, str]:
    """Read what a class and its bases say of their attributes.

    Args:
        model: A class with docstrings in Google's style.

    Returns:
        Meaning by name; a class speaks before its bases.
    """
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        found |= _section(kind.__dict__.get("__doc__") or "")
    return found


def _section(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name, indent = "", 0
    for line in text.partition("Attributes:")[2].splitlines()[1:]:
        stripped = line.strip()
        depth = len(line) - len(line.lstrip())
        begun = _FIELD.match(stripped)
        if not stripped or (found and depth < indent):
            break
        if begun and (not found or depth == indent):
            name, indent = begun[1], depth
            found[name] = begun[2]
        elif name:
            found[name] += f" {stripped}"
    return found


def _models(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in kind.__subclasses__():
        yield model
        yield from _models(model)
