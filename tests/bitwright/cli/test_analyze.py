"""`bitwright analyze` on a tiny network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from bitwright.cli import main
from quant_core.spec import SensitivityTable

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["analyze", *map(str, arguments)])
        assert isinstance(ended.value.code, int)
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("given")
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> str:
        return ", ".join(repr(float(v)) for v in rng.normal(0, 0.7, shape).ravel())

    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        net (float[n, 5] x) => (float[n, 4] logits)
        <float[5, 8] one = {{{numbers(5, 8)}}}, float[8, 4] two = {{{numbers(8, 4)}}}>
        {{ a = MatMul(x, one) h = Relu(a) logits = MatMul(h, two) }}"""
    )
    onnx.save(model, folder / "net.onnx")
    np.savez(folder / "x.npz", x=rng.normal(size=(60, 5)).astype(np.float32))
    return folder / "net.onnx", folder / "x.npz"


def read(path: Path) -> SensitivityTable:
    return SensitivityTable.model_validate_json(path.read_text())


def test_a_table_is_written_printed_and_the_same_for_the_same_seed(
    run: Run, given: tuple[Path, ...], tmp_path: Path
) -> None:
    model, data = given
    options = ("--sensitivity", "gauss_newton", "--bits", "2,4", "--rounding", "nearest", "--seed", "7")
    code, said, stages = run(model, "--data", data, *options, "--out", tmp_path / "one.json")
    assert code == 0, stages
    assert "gauss_newton" in said
    assert "trace" in said
    for stage in ("ingest", "rounding", "sensitivity"):
        assert f"{stage}: " in stages
    code, said, _ = run(model, "--data", data, *options, "--out", tmp_path / "two.json", "--json")
    table = read(tmp_path / "one.json")
    assert json.loads(said) == json.loads((tmp_path / "two.json").read_text())
    assert read(tmp_path / "two.json") == table
    assert (table.method, table.rounding, table.seed, table.samples) == ("gauss_newton", "nearest", 7, 45)
    # A quarter is left out, as a quantization leaves it out for verification.
    assert [layer.weight for layer in table.layers] == ["one", "two"]
    assert {path.name for path in tmp_path.iterdir()} == {"one.json", "two.json", "costs.json"}
    for layer in table.layers:
        assert layer.sensitivity[2] > layer.sensitivity[4] > 0
        assert layer.eigenvalue is None


def test_a_plan_can_be_made_of_what_an_analysis_wrote(
    run: Run, given: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = given
    code, _, error = run(model, "--data", data, "--bits", "2,4,8", "--out", tmp_path)
    assert code == 0, error
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(tmp_path / "sensitivity.json"), "--effective-bits", "6", "--json"])
    assert ended.value.code == 0
    plan = json.loads(capsys.readouterr().out)
    losses = [layer.sensitivity for layer in read(tmp_path / "sensitivity.json").layers]
    best = min(
        (losses[0][a] + losses[1][b], (a, b))
        for a in (2, 4, 8)
        for b in (2, 4, 8)
        if 40 * a + 32 * b <= 6 * 72
    )
    assert tuple(layer["bits"] for layer in plan["layers"]) == best[1]
    code, _, error = run(model, "--data", data, "--bits", "2,4", "--sensitivity", "orm", "--out", tmp_path)
    assert code == 0, error
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(tmp_path), "--size", "0.9"])
    assert ended.value.code != 0
    assert "orm gives no loss increase" in capsys.readouterr().err


def test_what_belongs_to_pairs_of_layers_goes_to_a_file_beside_the_table(
    run: Run, given: tuple[Path, ...], tmp_path: Path
) -> None:
    model, data = given
    code, _, error = run(
        model, "--data", data, "--sensitivity", "interaction", "--bits", "2,4", "--out", tmp_path
    )
    assert code == 0, error
    table = read(tmp_path / "sensitivity.json")
    assert table.interactions == "interactions.npz"
    with np.load(tmp_path / "interactions.npz") as file:
        assert file["pairs"].shape == (2, 2, 2, 2)
        assert list(file["layers"]) == [layer.name for layer in table.layers]


@pytest.mark.slow
def test_two_processes_write_what_one_writes(run: Run, given: tuple[Path, ...], tmp_path: Path) -> None:
    model, data = given
    for workers in (1, 2):
        options = ("--sensitivity", "hawq_v2", "--bits", "2,4", "--activations", "--workers", workers)
        code, _, error = run(model, "--data", data, *options, "--out", tmp_path / f"{workers}.json")
        assert code == 0, error
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    assert read(tmp_path / "2.json").probes > 0


def test_a_weight_of_an_output_reaches_the_loss(run: Run, given: tuple[Path, ...], tmp_path: Path) -> None:
    model, data = given
    options = ("--bits", "2", "--rounding", "nearest", "--seconds", "100", "--json")
    found = []
    for weight in ("1", "3"):
        code, said, error = run(
            model, "--data", data, *options, "--loss-weight", f"logits={weight}", "--out", tmp_path / "t.json"
        )
        assert code == 0, error
        found.append(SensitivityTable.model_validate_json(said))
    assert found[1].loss == "kl (logits x 3)"
    for one, three in zip(found[0].layers, found[1].layers, strict=True):
        assert three.sensitivity[2] == pytest.approx(3 * one.sensitivity[2], rel=1e-4)


def test_spectra_come_as_numbers_and_as_a_page(run: Run, given: tuple[Path, ...], tmp_path: Path) -> None:
    model, data = given
    options = (
        "--sensitivity",
        "gauss_newton",
        "--bits",
        "2",
        "--rounding",
        "nearest",
        "--spectrum",
        "--activations",
    )
    code, _, error = run(model, "--data", data, *options, "--out", tmp_path)
    assert code == 0, error
    assert {path.name for path in tmp_path.iterdir()} == {
        "sensitivity.json",
        "costs.json",
        "spectrum.json",
        "spectrum.html",
    }
    assert all(layer.activation_trace for layer in read(tmp_path / "sensitivity.json").layers)
    spectrum = json.loads((tmp_path / "spectrum.json").read_text())
    names = [one["name"] for one in spectrum["spectra"]]
    assert names == ["whole net", *(layer.name for layer in read(tmp_path / "sensitivity.json").layers)]
    for one in spectrum["spectra"]:
        for weights in one["weights"]:
            assert sum(weights) == pytest.approx(1)
        assert one["smallest"] < one["largest"] <= one["frobenius"] * 1.5
    whole, *layers = spectrum["spectra"]
    assert whole["trace"] == pytest.approx(sum(one["trace"] for one in layers), rel=0.5)
    assert "net.onnx" in (tmp_path / "spectrum.html").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sensitivity", "magic"), ["sensitivity", "hutch++"]),
        (("--tolerance", "2"), ["tolerance"]),
        (("--seconds", "0"), ["seconds"]),
        (("--loss-weight", "logits"), ["--loss-weight", "OUTPUT=WEIGHT"]),
        (("--loss-weight", "logits=-1"), ["--loss-weight"]),
        (("--workers", "0"), ["workers"]),
        (("--held-back", "1"), ["held"]),
    ],
)
def test_a_bad_option_is_named(
    run: Run, given: tuple[Path, ...], tmp_path: Path, options: tuple[str, ...], words: list[str]
) -> None:
    model, data = given
    code, said, error = run(model, "--data", data, "--out", tmp_path / "t.json", *options)
    assert code == 2
    assert said == ""
    assert all(word in error for word in words)
    assert list(tmp_path.iterdir()) == []
