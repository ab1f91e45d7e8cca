"""Requests put together from single options, and answers of services that know more than this client."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from bitwright.errors import InvalidRequestError, ServerError
from quant_core.spec.shorthand import AsWritten
from quant_core.spec.wrong_field import wrong_field

S = TypeVar("S", bound=BaseModel)


def read_request(kind: type[S], given: Mapping[str, Any]) -> S:
    """Put a request together.

    Args:
        kind: Which request.
        given: Its fields, shorthand included.

    Returns:
        The request.

    Raises:
        InvalidRequestError: If a field cannot be used.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        message, field = wrong_field(error, kind)
        raise InvalidRequestError(
            message if message.endswith("?") else f"{message}.",
            remedy="Correct this option.",
            where=field,
            code="spec",
        ) from error


@contextmanager
def naming_fields(request: AsWritten, part: str) -> Iterator[None]:
    """Name fields of a request that a service refuses within this context as they were written here.

    Args:
        request: What is sent, in full where the user may have used shorthand.
        part: What the service calls it.

    Yields:
        Nothing.

    Raises:
        InvalidRequestError: As it came, with another place where it names one of the request.
    """
    try:
        yield
    except InvalidRequestError as error:
        where = error.where or ""
        if where.startswith(f"{part}."):
            error.where = request.place_of(where.removeprefix(f"{part}.").removeprefix("budget.")) or where
        raise


def read_answer(kind: type[S], content: bytes) -> S:
    """Read what a service tells; fields that this client does not know are passed over, however deep they lie.

    Args:
        kind: What it is.
        content: JSON.

    Returns:
        The value.

    Raises:
        ServerError: If it is something else.
    """
    try:
        return _read_known(kind, content)
    except ValidationError as error:
        refuse_answer(error)


def refuse_answer(cause: Exception | None = None) -> NoReturn:
    """Say that an answer is not what a service tells.

    Args:
        cause: What is wrong with it.

    Raises:
        ServerError: Always.
    """
    raise ServerError(
        "The answer is not what a Bitwright service tells.",
        remedy="See that the address is that of a Bitwright service, and its version close to this client's.",
        code="answer",
    ) from cause


def _read_known(kind: type[S], content: bytes) -> S:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        unknown = [found["loc"] for found in error.errors() if found["type"] == "extra_forbidden"]
        if not unknown:
            raise
    data = json.loads(content)
    for *path, name in unknown:  # requests forbid such fields, and a report repeats what was asked
        holder: Any = data
        for step in path:
            holder = holder[step]
        del holder[name]
    return kind.model_validate(data)
