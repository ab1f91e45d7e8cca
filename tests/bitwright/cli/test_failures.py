"""Wrong options are answered in the words of the command line."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bitwright.cli import main

_NO_WIDTH = "is not a supported bit-width; choose from 2, 3, 4, 5, 6, 8, float"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--size", "abc"], "--size: cannot read 'abc' as a size"),
        (["--size", "0"], "--size: '0': input should be greater than 0"),
        (
            ["--bits", "4,seven"],
            f"--bits: 'seven' {_NO_WIDTH}",
        ),
        (["--bits", "7"], "--bits: 7 is not a supported bit-width"),
        (["--bits", "fp4"], f"--bits: 'fp4' {_NO_WIDTH}; floating formats are asked for by weight_format"),
        (["--bits", ","], "--bits: weight_bits is empty; name at least one bit-width"),
        (
            ["--pin", "fc=x"],
            "--pin, --exclude, --float-activations, --layer-activations: 'x' is not a supported bit-width",
        ),
        (["--activation-bits", "5"], "--activation-bits: 5 is nothing that activations can be given"),
        (
            ["--sensitivity", "magic"],
            "--sensitivity: 'magic': input should be 'output', 'interaction'",
        ),
        (["--device", "tpu"], "--device: 'tpu' is not a device; write auto, cpu, cuda or cuda:N"),
        (["--seed", "-1"], "--seed: -1: input should be greater than or equal to 0"),
    ],
)
def test_an_option_with_a_wrong_value_is_named_as_it_was_typed(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["quantize", "m.onnx", "--data", "s.npz", "--out", str(tmp_path / "out"), *arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"Error: {told}" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("UPLOAD_LIMIT", "-5", "BITWRIGHT_UPLOAD_LIMIT: '-5': input should be greater than 0"),
        (
            "UPLOAD_HOURS",
            "1e12",
            "BITWRIGHT_UPLOAD_HOURS: '1e12': input should be less than or equal to 876000",
        ),
        ("RESULT_DAYS", "1e9", "BITWRIGHT_RESULT_DAYS: '1e9': input should be less"),
        ("KEYS", "maybe", "BITWRIGHT_KEYS: 'maybe'"),
        ("DEVICES", "tpu", "--devices: 'tpu' is not a device"),
    ],
)
@pytest.mark.parametrize("command", [["admin", "keys", "list"], ["admin", "gc"], ["serve"]])
def test_a_wrong_setting_is_named_as_it_was_set(
    name: str,
    value: str,
    told: str,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(f"BITWRIGHT_{name}", value)
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert f"Error: {told}" in capsys.readouterr().err


def test_a_data_folder_that_cannot_be_made_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["admin", "keys", "list", "--data-dir", "/proc/none"])
    assert ended.value.code == 2
    assert "Error: /proc/none: the folder cannot be written to" in capsys.readouterr().err


def test_a_full_disk_is_the_users_to_clear(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "out/model.onnx")

    monkeypatch.setattr("quant_core.preflight.inspect_model", fail)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "m.onnx"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: out/model.onnx: No space left on device. Make room")
