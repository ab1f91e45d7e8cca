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
        (["--size", "0"], "--size: '0' is too small; write more than 0"),
        (
            ["--bits", "4,seven"],
            f"--bits: 'seven' {_NO_WIDTH}",
        ),
        (["--bits", "7"], "--bits: 7 is not a supported bit-width"),
        (["--bits", "fp4"], f"--bits: 'fp4' {_NO_WIDTH}; floating formats are asked for by weight_format"),
        (["--bits", ","], "--bits: the list is empty; name at least one bit-width"),
        (
            ["--pin", "fc=x"],
            "--pin: 'x' is not a supported bit-width",
        ),
        (["--activation-bits", "5"], "--activation-bits: '5' is nothing that activations can be given"),
        (
            ["--sensitivity", "magic"],
            "--sensitivity: 'magic' is not known here; write 'output', 'interaction'",
        ),
        (["--device", "tpu"], "--device: 'tpu' is not a device; write auto, cpu, cuda or cuda:N"),
        (["--seed", "-1"], "--seed: -1 is too small; write at least 0"),
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
    ("text", "told"),
    [
        (None, "it cannot be read (No such file or directory). Name what `bitwright profile` wrote"),
        ("[", "it is not what `bitwright profile` of this version writes: Invalid JSON"),
        ("{}", "it is not what `bitwright profile` of this version writes at model: this is missing"),
    ],
)
def test_a_latency_table_that_is_none_is_named_with_what_writes_one(
    text: str | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "latency.json"
    if text is not None:
        table.write_text(text)
    wanted = ["--latency", "1ms", "--latency-table", str(table)]
    with pytest.raises(SystemExit) as ended:
        main(["quantize", "m.onnx", "--data", "s.npz", "--out", str(tmp_path / "out"), *wanted])
    assert ended.value.code == 2
    assert f"Error: --latency-table: {table}: {told}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("UPLOAD_LIMIT", "-5", "BITWRIGHT_UPLOAD_LIMIT: '-5' is too small; write more than 0"),
        (
            "UPLOAD_HOURS",
            "1e12",
            "BITWRIGHT_UPLOAD_HOURS: '1e12' is too large; write at most 876000",
        ),
        ("RESULT_DAYS", "1e9", "BITWRIGHT_RESULT_DAYS: '1e9' is too large; write at most 36500"),
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
        main(["admin", "keys", "create", "a", "--data-dir", "/proc/none"])
    assert ended.value.code == 2
    assert "Error: /proc/none: the folder cannot be written to" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["keys", "list"], ["keys", "renew", "a"], ["keys", "revoke", "a"], ["gc"]]
)
def test_a_folder_in_which_no_service_has_worked_is_refused_and_not_made(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BITWRIGHT_DATABASE_URL", raising=False)
    place = tmp_path / "mistyped"
    with pytest.raises(SystemExit) as ended:
        main(["admin", *command, "--data-dir", str(place)])
    assert ended.value.code == 2
    assert (
        f"Error: {place}: no service has worked in this folder. Name the service's own"
        in capsys.readouterr().err
    )
    assert not place.exists()


def test_a_key_may_be_made_before_a_service_is_there_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BITWRIGHT_DATABASE_URL", raising=False)
    told = []
    for name in ("first", "second"):
        with pytest.raises(SystemExit) as ended:
            main(["admin", "keys", "create", name, "--data-dir", str(tmp_path)])
        assert ended.value.code == 0
        told.append(f"made a new database in {tmp_path}" in capsys.readouterr().err)
    assert told == [True, False]


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "-"],
        ["inspect", "m.onnx", "--data", "-"],
        ["quantize", "-", "--data", "s.npz", "--out", "out"],
        ["evaluate", "m.onnx", "--data", "-"],
        ["submit", "-", "--data", "s.npz"],
    ],
)
def test_standard_input_is_refused_by_name(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert "standard input cannot be read here; write it to a file and name that" in capsys.readouterr().err


def test_a_state_that_no_job_has_is_named_by_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["jobs", "--state", "queued", "--state", "foo"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Invalid value for --state: 'foo' is no state of a job; choose from queued, validating," in said


def test_a_full_disk_is_the_users_to_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "out/model.onnx")

    monkeypatch.setattr("quant_core.preflight.inspect_model", fail)
    (tmp_path / "m.onnx").touch()
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(tmp_path / "m.onnx")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: out/model.onnx: No space left on device. Make room")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serve", "--port", "99999"], "'--port': '99999' is too large; write at most 65535"),
        (["serve", "--port", "web"], "'--port': 'web' is not a whole number"),
        (["jobs", "--limit", "0"], "'--limit': '0' is too small; write at least 1"),
    ],
)
def test_what_is_read_before_a_command_runs_is_answered_in_the_same_words(
    arguments, told, monkeypatch, capsys
):
    monkeypatch.setattr("sys.argv", ["bitwright", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())
