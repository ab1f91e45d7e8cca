"""What a cut-off attempt leaves is read back as it was, and leads to the same file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quant_core.checkpoints import Checkpoints, engine_mark, find_rounded, keep_rounded, probe_log
from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.codes.trellis import trellis_values
from quant_core.errors import CancelledError
from quant_core.pipeline import quantize
from quant_core.sensitivity.estimators import output
from quant_core.spec import Progress, QuantizeSpec

DATA = Path(__file__).parents[2] / "benchmarks" / "data"
MODEL = DATA / "resnet20_cifar10.onnx"


def test_rounded_weights_of_every_form_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-8, 8, (4, 6), dtype=np.int8)
    scale = rng.random(4, np.float32)
    weights = {
        "a/b:0": {
            4: QuantizedWeight(codes, scale, 0, 4, bias=CorrectedBias("b", scale)),
            8: QuantizedWeight(np.asfortranarray(codes), np.float32(0.5), None, 8),
        },
        "c": {
            4: QuantizedWeight(
                codes, rng.random((4, 2), np.float32), 0, 4, zero_point=codes[:, :2], block_size=3,
                format="nvfp4", tensor_scale=0.25,
            )
        },
        "stack": {3: QuantizedWeight(codes.reshape(2, 3, 4), rng.random(8, np.float32), (0, 2), 3)},
        "paths": {4: QuantizedWeight(trellis_values(codes, 0), scale, 0, 4, trellis=True)},
    }  # fmt: skip
    told: list[str] = []
    keep_rounded(Checkpoints(tmp_path, told.append), weights)
    assert told == ["rounding"]
    found = find_rounded(Checkpoints(tmp_path))
    assert found is not None
    assert {name: tuple(widths) for name, widths in found.items()} == {
        "a/b:0": (4, 8),
        "c": (4,),
        "stack": (3,),
        "paths": (4,),
    }
    for name, widths in weights.items():
        for bits, weight in widths.items():
            np.testing.assert_equal(asdict(found[name][bits]), asdict(weight))
            assert found[name][bits].axis == weight.axis
            assert found[name][bits].codes.dtype == np.int8


def test_what_another_version_or_a_cut_off_write_left_is_not_found(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(FileNotFoundError), checkpoints.keep("sensitivity") as folder:
        (folder / "no folder" / "table").write_text("half")
    assert checkpoints.find("sensitivity") is None
    with checkpoints.keep("sensitivity") as folder:
        assert list(folder.iterdir()) == []
    assert checkpoints.find("sensitivity") is not None
    (tmp_path / "sensitivity" / "version.json").write_text('"0.0.1"')
    assert checkpoints.find("sensitivity") is None


def test_what_other_code_of_the_same_version_left_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, checkpoints = tmp_path / "engine", Checkpoints(tmp_path / "kept")
    (sources / "room").mkdir(parents=True)
    (sources / "room" / "module.py").write_text("x = 1")
    before = engine_mark.__wrapped__(sources)
    (sources / "room" / "module.py").write_text("x = 2")
    after = engine_mark.__wrapped__(sources)
    assert before != after
    monkeypatch.setattr("quant_core.checkpoints.engine_mark", lambda: before)
    with checkpoints.keep("rounding"):
        pass
    assert checkpoints.find("rounding") is not None
    monkeypatch.setattr("quant_core.checkpoints.engine_mark", lambda: after)
    assert checkpoints.find("rounding") is None


def test_checkpoints_alone_bring_no_torch() -> None:
    code = "import sys, quant_core.checkpoints; sys.exit('torch' in sys.modules)"  # every worker process imports them
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_an_attempt_that_goes_on_gives_the_same_file_and_probes_nothing(tmp_path: Path) -> None:
    with np.load(DATA / "cifar10_calibration.npz") as full:
        np.savez(tmp_path / "samples.npz", input=full["input"][:48], labels=full["labels"][:48])
    spec = QuantizeSpec.model_validate({"size": 0.16, "bits": [4, 8]})

    def run(name: str, until: str | None, checkpoints: Checkpoints | None) -> list[Progress]:
        steps: list[Progress] = []

        def say(step: Progress) -> None:
            steps.append(step)
            if step.stage == until:
                raise CancelledError

        try:
            quantize(MODEL, tmp_path / "samples.npz", spec, tmp_path / name, say, checkpoints=checkpoints)
        except CancelledError:
            assert until is not None
        return steps

    run("whole", None, None)
    told: list[str] = []
    checkpoints = Checkpoints(tmp_path / "checkpoints", told.append)
    run("cut", "allocation", checkpoints)
    assert [name for name in told if not name.startswith("probes-")] == ["rounding", "sensitivity"]
    told.clear()
    steps = run("resumed", None, checkpoints)
    assert told == []
    assert [step.message for step in steps if step.stage == "sensitivity"] == ["taken from the last attempt"]
    assert [step.message for step in steps if step.stage == "rounding"][-1] == "22 layers rounded"
    assert (tmp_path / "resumed" / "model.onnx").read_bytes() == (
        tmp_path / "whole" / "model.onnx"
    ).read_bytes()


_KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from quant_core.checkpoints import Checkpoints
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec

model, data, out, checkpoints = map(Path, sys.argv[1:])

def kept(name):
    if name.startswith("probes-") and any(".piece.0.9" in key for key in np.load(checkpoints / name / "probes.npz")):
        os.kill(os.getpid(), signal.SIGKILL)

spec = QuantizeSpec.model_validate({"size": 0.16, "bits": [4, 8]})
quantize(model, data, spec, out, checkpoints=Checkpoints(checkpoints, kept, probe_seconds=0))
"""


@pytest.mark.slow
def test_after_a_kill_in_the_middle_of_the_probes_none_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[str, float]] = []
    changes_of = output.changes_of

    def counted(runs: Any, layer: Any, *more: Any, **options: Any) -> Any:
        measured.append((layer.name, runs[0].batch.feeds["input"].sum().item()))
        return changes_of(runs, layer, *more, **options)

    monkeypatch.setattr(output, "changes_of", counted)
    with np.load(DATA / "cifar10_calibration.npz") as full:
        np.savez(tmp_path / "samples.npz", input=full["input"][:48], labels=full["labels"][:48])
    spec = QuantizeSpec.model_validate({"size": 0.16, "bits": [4, 8]})
    quantize(MODEL, tmp_path / "samples.npz", spec, tmp_path / "whole")
    all_of_them = set(measured)
    assert len(all_of_them) == len(measured)
    kept = tmp_path / "checkpoints"
    files = [str(MODEL), str(tmp_path / "samples.npz"), str(tmp_path / "cut"), str(kept)]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, *files],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    known = probe_log(Checkpoints(kept))
    assert known is not None
    pieces = sum(
        ".piece." in path for file in kept.glob("probes-*/probes.npz") for path in np.load(file).files
    )
    assert 0 < pieces < len(all_of_them)
    measured.clear()
    steps: list[Progress] = []
    quantize(
        MODEL,
        tmp_path / "samples.npz",
        spec,
        tmp_path / "resumed",
        steps.append,
        checkpoints=Checkpoints(kept),
    )
    assert len(measured) == len(all_of_them) - pieces
    assert set(measured) < all_of_them
    assert f"{known.known} measurements taken from the last attempt" in [step.message for step in steps]
    for name in ("model.onnx", "sensitivity.json", "pareto.json"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
