"""Commands where only the client is installed."""

from __future__ import annotations

import importlib

import pytest

from bitwright.cli.failures import CORRECT, MissingEngineError, exit_code
from bitwright.cli.local import engine


def test_a_command_without_its_engine_says_how_to_install_it() -> None:
    with pytest.raises(MissingEngineError) as told, engine():
        importlib.import_module("there_is_none.at_all")
    assert "there is no there_is_none" in str(told.value)
    assert "pip install '.[cpu]'" in str(told.value)
    assert exit_code(told.value) == CORRECT


def test_a_missing_part_of_ours_is_no_advice_to_install_it() -> None:
    with pytest.raises(ModuleNotFoundError) as told, engine():
        importlib.import_module("quant_core.there_is_none")
    assert told.value.name == "quant_core.there_is_none"
