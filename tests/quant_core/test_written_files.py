"""Files of our own commands: what is not there, or not one of them, is told with the field and what to name instead."""

from __future__ import annotations

import pytest

from quant_core.errors import SpecError
from quant_core.spec import Budget
from quant_core.written_files import place_of, read_written


def _read(path):
    return read_written(Budget, path, "a test", "Name another.")


def test_what_was_written_is_read(tmp_path):
    (tmp_path / "b.json").write_text(Budget(size=0.5).model_dump_json())
    assert _read(tmp_path / "b.json") == Budget(size=0.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "it cannot be read (No such file or directory)."),
        ('{"bits": 4}', "it is not what a test of this version writes at bits: "),
        ("{", "it is not what a test of this version writes: Invalid JSON"),
    ],
)
def test_what_was_not_is_named_by_its_path(tmp_path, monkeypatch, text, told):
    monkeypatch.chdir(tmp_path)
    path = tmp_path.relative_to(tmp_path) / "size"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError) as refused:
        _read(path)
    assert refused.value.message.startswith(told)
    assert (refused.value.where, refused.value.remedy) == ("./size", "Name another.")
    assert place_of(tmp_path / "size") == f"{tmp_path}/size"
