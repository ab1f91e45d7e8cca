"""What is wrong with a request, said the same way by the service and by the client."""

from __future__ import annotations

from difflib import get_close_matches

from pydantic import BaseModel, ValidationError

from quant_core.spec.budget import Budget

_SHORTHAND = ("bits", "pin", "exclude", "float_activations", "layer_activations")


def wrong_field(error: ValidationError, kind: type[BaseModel]) -> tuple[str, str]:
    """Say what is wrong with the first field that cannot be used.

    Args:
        error: What reading a request ended with.
        kind: Which request.

    Returns:
        What is wrong, without a full stop, and the path of the field, its parts joined by dots.
    """
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return first["msg"].removeprefix("Value error, "), place
    name = str(first["loc"][-1])
    known = set(kind.model_fields)
    if len(first["loc"]) == 1:
        known |= {*_SHORTHAND, *(Budget.model_fields if "budget" in known else ())}
        near = get_close_matches(name, sorted(known), 1)
        if near:
            return f"there is no field {name!r}; did you mean {near[0]!r}?", place
    return f"there is no field {name!r}", place
