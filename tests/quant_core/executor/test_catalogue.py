"""The operator page is made from the registry and is up to date."""

from __future__ import annotations

import onnx
import pytest

from quant_core.errors import InternalError
from quant_core.executor.catalogue import PAGE, operator_page
from quant_core.executor.registry import find, operator, registered


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == operator_page(), "run: python -m quant_core.executor.catalogue"


def test_the_standard_is_covered() -> None:
    """Every current numeric operator has code or a body; those without are about text and images as files."""
    missing = {
        schema.name
        for schema in onnx.defs.get_all_schemas()
        if not schema.domain
        and not schema.deprecated
        and find("", schema.name, schema.since_version) is None
        and not schema.has_function
        and not schema.has_context_dependent_function
    }
    assert missing == {
        "Constant",  # read by the compiler itself
        "ImageDecoder",
        "RegexFullMatch",
        "StringConcat",
        "StringNormalizer",
        "StringSplit",
        "TfIdfVectorizer",
    }


def test_an_operator_is_registered_once() -> None:
    entry = next(registered())
    with pytest.raises(InternalError, match="registered twice"):
        operator(entry.name, domain=entry.domain)(entry.build)
