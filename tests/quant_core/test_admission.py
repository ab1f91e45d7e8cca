"""A request is held against its model before anything is measured, and each purpose gets samples of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.admission import Admitted, admit
from quant_core.calibration import Samples
from quant_core.errors import InfeasibleBudgetError, SamplesError, SpecError
from quant_core.spec import QuantizeSpec

SAMPLES = 40


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two products, and samples that are told apart by their first number."""
    folder = tmp_path_factory.mktemp("net")
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal((16, 16)).astype(np.float32) for name in ("a", "b")}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"], "one"),
            helper.make_node("MatMul", ["h", "b"], ["y"], "two"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / "net.onnx")
    samples = random.standard_normal((SAMPLES, 16)).astype(np.float32)
    samples[:, 0] = np.arange(SAMPLES) / SAMPLES
    np.savez(folder / "x.npz", x=samples)
    return folder / "net.onnx", folder / "x.npz"


def _admit(paths: tuple[Path, Path], **asked: Any) -> Admitted:
    return admit(*paths, QuantizeSpec.model_validate({"device": "cpu", **asked}))


def _which(samples: Samples) -> set[int]:
    return {round(float(value) * SAMPLES) for value in samples.inputs["x"][:, 0]}


def test_without_a_band_the_held_back_samples_judge_and_report(paths: tuple[Path, Path]) -> None:
    found = _admit(paths, size=0.5)
    assert found.judging is found.held_back
    assert len(_which(found.held_back)) == SAMPLES // 4
    assert _which(found.calibration) | _which(found.held_back) == set(range(SAMPLES))
    assert not _which(found.calibration) & _which(found.held_back)


def test_a_band_is_judged_on_samples_that_the_report_does_not_see(paths: tuple[Path, Path]) -> None:
    found = _admit(paths, max_drop="sqnr>=20dB", held_back=0.5)
    parts = [_which(part) for part in (found.calibration, found.judging, found.held_back)]
    assert [len(part) for part in parts] == [20, 10, 10]
    assert set.union(*parts) == set(range(SAMPLES))


def test_one_sample_cannot_do_both(paths: tuple[Path, Path]) -> None:
    with pytest.raises(SamplesError, match=r"held_back 0\.025 leaves 1 in all") as told:
        _admit(paths, max_drop="sqnr>=20dB", held_back=1 / SAMPLES)
    assert told.value.where == "held_back"
    assert len(_which(_admit(paths, size=0.5, held_back=1 / SAMPLES).held_back)) == 1


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"effective_bits": 1}, InfeasibleBudgetError, "effective"),
        ({"bops": 1000}, InfeasibleBudgetError, "at least 8192"),
        ({"peak_memory": 10}, InfeasibleBudgetError, "memory"),
        ({"size": 1, "ties": [["one", "three"]]}, SpecError, "three"),
        ({"size": 1, "loss_weights": {"z": 1}}, SpecError, "z"),
    ],
)
def test_what_cannot_be_reached_is_refused(
    asked: dict[str, Any], error: type[Exception], words: str, paths: tuple[Path, Path]
) -> None:
    with pytest.raises(error, match=words):
        _admit(paths, **asked)
