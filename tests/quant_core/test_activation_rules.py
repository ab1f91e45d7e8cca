"""Layers of ResNet-20 that keep float activations among integer ones, end to end."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from quant_core.pipeline import quantize
from quant_core.spec import CostTable, QuantizeSpec, Report

DATA = Path(__file__).parents[2] / "benchmarks" / "data"
MODEL = DATA / "resnet20_cifar10.onnx"
WIDE = "/layer3/layer3.0/conv2/Conv"
STEM, INNER, HEAD = "/conv1/Conv", "/layer2/layer2.1/conv1/Conv", "/fc/Gemm"
SPEC = {
    "size": 0.16,
    "bits": [4, 8],
    "rounding": "nearest",
    "equalize": "none",
    "float_activations": [STEM, INNER],
    "held_back": 0.25,
    "rules": [{"match": HEAD, "pin": 8, "activation_bits": "float"}],
    "layer_activations": {WIDE: 16},
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("activation_rules")
    with np.load(DATA / "cifar10_calibration.npz") as full:
        np.savez(folder / "few.npz", input=full["input"][:32], labels=full["labels"][:32])
    spec = QuantizeSpec.model_validate(SPEC)
    return folder / "out", quantize(MODEL, folder / "few.npz", spec, folder / "out", lambda _: None)


def test_those_layers_run_in_float_on_packed_weights(result: tuple[Path, Report]) -> None:
    _, report = result
    told = {layer.name: (layer.form, layer.activation_bits) for layer in report.layers}
    assert {told.pop(name) for name in (STEM, INNER, HEAD)} == {("weight_only", 32)}
    assert told.pop(WIDE) == ("wide", 8)  # the integer kernel before it writes 8 bits
    assert set(told.values()) == {("static", 8)}
    kernels = {layer.name: layer.kernel for layer in report.layers}
    assert {kernels.pop(name) for name in (STEM, INNER, HEAD, WIDE)} <= {
        "Conv",
        "FusedConv",
        "Gemm",
        "FusedGemm",
    }
    assert set(kernels.values()) == {"QLinearConv"}
    # How fast the file runs is the machine's affair, and no other warning has a cause.
    assert all("of the float model's speed" in told for told in report.warnings)
    bits = {layer.name: layer.weight_bits for layer in report.layers}
    assert set(bits.values()) <= {4, 8}
    assert "pinned to 8 with float activations" in next(r.reason for r in report.layers if r.name == HEAD)


def test_prices_are_those_of_the_file(result: tuple[Path, Report]) -> None:
    out, report = result
    size = (out / "model.onnx").stat().st_size
    assert size == report.model.quantized_bytes <= report.model.budget_bytes
    assert abs(report.model.predicted_bytes / size - 1) < 0.02
    table = CostTable.model_validate_json((out / "costs.json").read_bytes())
    assert {row.name for row in table.layers if set(row.activation_bits.values()) == {32}} == {
        STEM,
        INNER,
        HEAD,
    }
    macs = {layer.name: layer.macs for layer in report.layers}
    wide = next(row for row in table.layers if row.name == WIDE)
    assert wide.bops(4) == macs[WIDE] * 4 * 16
    stem = next(row for row in table.layers if row.name == STEM)
    assert stem.bops(4) == macs[STEM] * 4 * 32


def test_sixteen_bits_are_asked_for_where_they_can_be_written() -> None:
    assert QuantizeSpec.model_validate({"activation_bits": "16"}).activation_bits == 16
    with pytest.raises(ValueError, match="written for ort-cpu alone"):
        QuantizeSpec.model_validate({"target": "tensorrt", "rules": [{"match": "a", "activation_bits": 16}]})


def test_the_simulation_holds_and_the_stem_reads_unrounded_pixels(result: tuple[Path, Report]) -> None:
    out, report = result
    assert abs(report.simulation.predicted_sqnr_db - report.simulation.measured_sqnr_db) < 1
    assert report.simulation.agreement_sqnr_db > 25
    model = onnx.load(out / "model.onnx")
    readers = [node.op_type for node in model.graph.node if "input" in node.input]
    assert readers == ["Conv"]
    session = onnxruntime.InferenceSession(out / "model.onnx")
    with np.load(DATA / "cifar10_calibration.npz") as data:
        answers = session.run(None, {"input": data["input"][:64]})[0].argmax(1)
        assert (answers == data["labels"][:64]).mean() > 0.8
    assert json.loads((out / "report.json").read_text())["spec"]["rules"][0]["activation_bits"] == 32
