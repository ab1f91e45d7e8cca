"""The commands on the real engine, and what they say when something is wrong."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from bitwright.cli import main
from quant_core.spec import Report

DATA = Path(__file__).parents[3] / "benchmarks" / "data"
RESNET = DATA / "resnet20_cifar10.onnx"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        assert isinstance(ended.value.code, int)
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples") / "few.npz"
    with np.load(DATA / "cifar10_calibration.npz") as data:
        np.savez(path, input=data["input"][:32], labels=data["labels"][:32])
    return path


def test_quantize_writes_everything_and_prints_before_and_after(
    run: Run, samples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out"
    code, said, stages = run(
        "quantize", RESNET, "--data", samples, "--size", "0.18", "--bits", "4,8", "--out", out,
        "--rounding", "nearest", "--pin", "/fc/Gemm=8", "--exclude", "/conv1/*", "--sensitivity", "gauss_newton",
        "--float-activations", "/layer1/layer1.0/*", "--seed", "3",
    )  # fmt: skip
    assert code == 0
    names = {"model.onnx", "report.json", "report.html", "sensitivity.json", "pareto.json", "costs.json"}
    assert {path.name for path in out.iterdir()} == names
    assert list(out.parent.iterdir()) == [out]
    report = Report.model_validate_json((out / "report.json").read_text())
    assert (report.seed, report.spec.sensitivity) == (3, "gauss_newton")
    assert {layer.weight_bits for layer in report.layers if layer.name == "/fc/Gemm"} == {8}
    assert {layer.weight_bits for layer in report.layers} <= {4, 8, 32}
    floats = {layer.name for layer in report.layers if layer.activation_bits == 32}
    assert floats == {"/conv1/Conv", "/layer1/layer1.0/conv1/Conv", "/layer1/layer1.0/conv2/Conv"}
    size = (out / "model.onnx").stat().st_size
    assert size == report.model.quantized_bytes <= 0.18 * RESNET.stat().st_size
    onnx.checker.check_model(out / "model.onnx")
    assert f"{size / 1000:.0f} KB" in said
    assert "top1" in said
    for stage in ("ingest", "rounding", "sensitivity", "allocation", "calibration", "export", "verification"):
        assert f"{stage}: " in stages


def test_inspect_for_people_and_for_programs(run: Run) -> None:
    code, said, _ = run("inspect", RESNET)
    assert code == 0
    assert "22 layers" in said
    assert "/layer3/layer3.2/conv2/Conv" in said
    assert "Every operator is supported" in said
    assert "may go below" not in said
    code, said, _ = run("inspect", RESNET, "--json")
    found = json.loads(said)
    assert found["float_bytes"] == RESNET.stat().st_size
    assert len(found["layers"]) == 22


def test_inspect_offers_a_size_that_quantize_takes_as_it_is_meant(run: Run, tmp_path: Path) -> None:
    tiny = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        net (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }"""
    )
    onnx.save(tiny, tmp_path / "tiny.onnx")
    _, said, _ = run("inspect", tmp_path / "tiny.onnx")
    _, told, _ = run("inspect", tmp_path / "tiny.onnx", "--json")
    assert f"(--size {json.loads(told)['smallest_bytes']}B), with all layers in integers" in " ".join(
        said.split()
    )


def test_inspect_offers_no_size_where_nothing_can_be_quantized(run: Run, tmp_path: Path) -> None:
    plain = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> net (float[n, 2] x) => (float[n, 2] y) { y = Relu(x) }"""
    )
    onnx.save(plain, tmp_path / "plain.onnx")
    _, said, _ = run("inspect", tmp_path / "plain.onnx")
    assert "No layer can be quantized" in said
    assert "--size" not in said


def test_evaluate_prints_the_metric(run: Run, samples: Path) -> None:
    code, said, _ = run("evaluate", RESNET, "--data", samples)
    assert code == 0
    assert said.startswith("top1: 0.9")
    code, said, _ = run("evaluate", RESNET, "--data", samples, "--json")
    found = json.loads(said)
    assert found["samples"] == 32
    assert found["interval"][0] < found["value"] <= found["interval"][1]


def test_debug_finds_nothing_wrong_with_the_float_file_itself(run: Run, samples: Path) -> None:
    code, said, _ = run("debug", RESNET, RESNET, "--data", samples, "--worst", "1", "--samples", "4")
    assert code == 0
    assert "on 4 samples" in said
    assert "share of the error" in said
    code, said, _ = run(
        "debug", RESNET, RESNET, "--data", samples, "--worst", "1", "--samples", "4", "--json"
    )
    found = json.loads(said)
    assert found["output_sqnr_db"] > 80  # batch norms are folded, which rounds differently
    assert len(found["layers"]) == 22
    assert found["not_found"] == []


def _bad_model(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.onnx"
    if kind == "text":
        path.write_text("not a model")
    elif kind == "truncated":
        path.write_bytes(RESNET.read_bytes()[:50_000])
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif kind == "nan":
        model = onnx.load(RESNET)
        weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        array = onnx.numpy_helper.to_array(weight).copy()
        array.flat[0] = np.nan
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
        onnx.save(model, path)
    return path  # "missing" is never written


@pytest.mark.parametrize("kind", ["missing", "text", "truncated", "pickle", "nan"])
@pytest.mark.parametrize("command", ["quantize", "inspect"])
def test_a_bad_model_is_one_clear_error(
    run: Run, samples: Path, tmp_path: Path, kind: str, command: str
) -> None:
    model = _bad_model(tmp_path, kind)
    before = sorted(tmp_path.rglob("*"))
    more = ("--data", samples, "--out", tmp_path / "out") if command == "quantize" else ()
    code, said, error = run(command, model, *more)
    assert code == 2
    assert said == ""
    assert model.name in error
    assert "Traceback" not in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--size", "0.01"), ["size", "smallest reachable"]),
        (("--size", "huge"), ["huge", "2.5MB"]),
        (("--size", "-1"), ["size"]),
        (("--bits", "4,7"), ["7", "2, 3, 4, 5, 6, 8, float"]),
        (("--sensitivity", "magic"), ["sensitivity", "hawq_v2"]),
        (("--device", "tpu"), ["device"]),
        (("--device", "cuda:99"), ["cuda:99"]),
        (("--seed", "-1"), ["seed"]),
        (("--seed", "x"), ["--seed"]),
        (("--pin", "fc"), ["--pin", "GLOB=BITS"]),
        (("--pin", "fc=9"), ["9"]),
        (("--pin", "nothing*=4"), ["nothing*"]),
        (("--exclude", "nothing"), ["nothing"]),
        (("--nonsense",), ["--nonsense"]),
    ],
)
def test_a_bad_option_is_named(
    run: Run, samples: Path, tmp_path: Path, options: tuple[str, ...], words: list[str]
) -> None:
    out = tmp_path / "out"
    code, _, error = run("quantize", RESNET, "--data", samples, "--out", out, *options)
    assert code == 2, error
    for word in words:
        assert word in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_bad_samples_are_named_and_the_folder_stays_as_it_was(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.npz"
    np.savez(bad, input=np.full((8, 3, 32, 32), np.nan, np.float32))
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_bytes(b"of an earlier run")
    (out / "report.json").write_bytes(b"of it too")
    code, _, error = run("quantize", RESNET, "--data", bad, "--out", out)
    assert code == 2
    assert "bad.npz" in error or "input" in error
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        "model.onnx": b"of an earlier run",
        "report.json": b"of it too",
    }


def test_the_model_itself_is_never_replaced(run: Run, samples: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(RESNET.read_bytes())
    code, _, error = run("quantize", model, "--data", samples, "--out", tmp_path)
    assert code == 2
    assert "replace what it is made of" in error
    assert model.read_bytes() == RESNET.read_bytes()


def test_an_interrupted_process_leaves_nothing(samples: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "bitwright",
        "quantize",
        RESNET,
        "--data",
        samples,
        "--out",
        tmp_path / "out",
    ]
    with subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("rounding"):
                break
        os.kill(process.pid, signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait() == 128 + signal.SIGTERM
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_job_that_leaves_nothing(
    run: Run, samples: Path, tmp_path: Path, sig: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), sig)

    monkeypatch.setattr("quant_core.pipeline.round_candidates", interrupted)
    before = signal.signal(sig, signal.SIG_IGN)  # nobody else takes it
    try:
        code, said, error = run("quantize", RESNET, "--data", samples, "--out", tmp_path / "out")
        assert signal.getsignal(sig) == signal.SIG_IGN
    finally:
        signal.signal(sig, before)
    assert (code, said) == (128 + sig, "")
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_while_commands_are_loaded_prints_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    ended = subprocess.run(
        [sys.executable, "-m", "bitwright", "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "Stopped.\n")


def test_version_and_help(run: Run) -> None:
    code, said, _ = run("--version")
    assert (code, said.split()[0]) == (0, "bitwright")
    code, said, _ = run("--help")
    assert code == 0
    assert all(name in said for name in ("quantize", "inspect", "evaluate", "serve"))


def test_without_the_engine_the_command_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    (tmp_path / "onnx_ir.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'onnx_ir'\", name='onnx_ir')"
    )
    (tmp_path / "fastapi.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'fastapi'\", name='fastapi')"
    )
    for arguments in (["inspect", str(RESNET)], ["serve"]):
        ended = subprocess.run(
            [sys.executable, "-m", "bitwright", *arguments],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 2
        assert "pip install '.[cpu]'" in ended.stderr  # there is no release that pip could find
        assert "Traceback" not in ended.stderr


def test_a_fault_of_ours_is_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("quant_core.preflight.inspect_model", fail)
    code, _, error = run("inspect", RESNET)
    assert code == 1
    assert "ZeroDivisionError: ours" in error
    assert "Traceback" not in error


def test_files_that_are_not_there_are_told_before_the_engine_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from bitwright.cli import main\n"
        "model, data, out = sys.argv[1:]\n"
        "for words in (('quantize', model, '--out', out), ('analyze', model), ('profile', model), ('inspect', model),\n"
        "              ('evaluate', model), ('debug', model, model)):\n"
        "    try: main([*words, '--data', data])\n"
        "    except SystemExit as end: assert end.code == 2, words\n"
        "assert not {'torch', 'onnx', 'numpy'} & set(sys.modules)\n"
    )
    arguments = [sys.executable, "-c", code, str(RESNET), str(tmp_path / "none.npz"), str(tmp_path / "out")]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("none.npz: the sample file does not exist.") == 6
