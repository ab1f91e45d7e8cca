"""Wrong options are answered in the words of the command line."""

from __future__ import annotations

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
