"""Layers that are faster in float run so, and no others."""

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quant_core.export.kernels.run_time import estimated_time
from quant_core.pipeline import quantize
from quant_core.preparation import float_speed, prepare
from quant_core.spec import FLOAT_BITS, QuantizeSpec
from tests.networks import network

SIDE = 64


def save(folder, activation, channels, count, tail=""):
    """Depthwise and pointwise convolutions in turn, with an activation function behind each, and more at the end."""
    rng, body, weights, last = np.random.default_rng(0), [], {}, "x"
    for number in range(count):
        depthwise = number % 2 == 0
        group, kernel = (channels, 3) if depthwise else (1, 1)
        shape = (channels, 1, 3, 3) if depthwise else (channels, channels, 1, 1)
        weights[f"w{number}"] = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        out = "y" if number + 1 == count and not tail else f"a{number}"
        pads = "1,1,1,1" if depthwise else "0,0,0,0"
        body.append(
            f"[layer{number}] c{number} = Conv<kernel_shape=[{kernel},{kernel}], group={group}, pads=[{pads}]>"
            f"({last}, w{number}) {out} = {activation}(c{number})"
        )
        last = out
    body.append(tail)
    image = f"float[n,{channels},{SIDE},{SIDE}]"
    onnx.save(network(f"g ({image} x) => ({image} y) {{ {' '.join(body)} }}", weights), folder / "m.onnx")
    x = rng.standard_normal((4, channels, SIDE, SIDE)).astype(np.float32)
    np.savez(folder / "s.npz", x=x)
    return folder


@pytest.fixture(scope="module")
def swish(tmp_path_factory):
    return save(tmp_path_factory.mktemp("swish"), "HardSwish", 16, 4)


def save_table(folder, *widths):
    """Products with Relu between them, as for rows of a table."""
    rng, body, weights, last = np.random.default_rng(0), [], {}, "x"
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        weights[f"w{number}"] = rng.standard_normal((outputs, inputs)) / np.sqrt(inputs)
        weights[f"b{number}"] = rng.standard_normal(outputs)
        body.append(f"[layer{number}] c{number} = Gemm<transB=1>({last}, w{number}, b{number}) ")
        body.append(
            f"a{number} = Relu(c{number})" if number + 2 < len(widths) else f"y = Identity(c{number})"
        )
        last = f"a{number}"
    ends = f"(float[n,{widths[0]}] x) => (float[n,{widths[-1]}] y)"
    onnx.save(network(f"g {ends} {{ {' '.join(body)} }}", weights), folder / "m.onnx")
    np.savez(folder / "s.npz", x=rng.standard_normal((8, widths[0])).astype(np.float32))
    return folder


def in_float(folder, **options):
    spec = QuantizeSpec.model_validate({"size": 2**40, "bits": [8], **options})
    job = prepare(folder / "m.onnx", folder / "s.npz", spec)
    return [layer.name for layer in job.layers if layer.activation_bits == FLOAT_BITS], job.notes


def test_few_channels_between_hard_swish_run_in_float_and_a_note_says_so(swish):
    names, notes = in_float(swish)
    assert names == ["layer0", "layer1", "layer2", "layer3"]
    (note,) = notes
    assert "4 layers run in float on packed weights (layer0, layer1, layer2 and 1 more)" in note
    assert "float_islands 0 keeps every layer in integers" in note


def test_tensors_kept_in_a_sequence(tmp_path):
    save(
        tmp_path,
        "HardSwish",
        16,
        1,
        "s = SequenceConstruct(a0, x) zero = Constant<value_int=0>() y = SequenceAt(s, zero)",
    )
    names, (note,) = in_float(tmp_path)
    assert names == ["layer0"]
    assert note.startswith("1 layer runs in float on packed weights (layer0)")


def test_neighbours_are_tried_together_where_there_are_many(tmp_path, monkeypatch):
    save(tmp_path, "HardSwish", 16, 12)
    alone, _ = in_float(tmp_path)
    estimates = []

    def estimated(*arguments):
        estimates.append(arguments)
        return estimated_time(*arguments)

    monkeypatch.setattr(float_speed, "_TRIALS", 2)
    monkeypatch.setattr(float_speed, "estimated_time", estimated)
    assert in_float(tmp_path)[0] == alone == [f"layer{number}" for number in range(12)]
    assert len(estimates) < 12


def test_what_hardly_loses_time_runs_in_float_beside_the_rest(tmp_path, monkeypatch):
    tail = "p = GlobalMaxPool(a3) [wide] q = Conv(p, v) r = ReduceMean<keepdims=1>(q) y = Add(a3, r)"
    proto = onnx.load(save(tmp_path, "HardSwish", 16, 4, tail) / "m.onnx")
    wide = np.random.default_rng(1).standard_normal((9000, 16, 1, 1)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(wide, "v"))
    onnx.save(proto, tmp_path / "m.onnx")
    found = ["layer0", "layer1", "layer2", "layer3"]
    assert in_float(tmp_path)[0] == found
    monkeypatch.setattr(float_speed, "_TIE", 1.1)
    assert in_float(tmp_path)[0] == [*found, "wide"]


def test_many_channels_stay_in_integers(tmp_path):
    assert in_float(save(tmp_path, "Relu", 128, 4)) == ([], ())


def test_a_small_part_of_the_time_stays_in_integers(tmp_path):
    tail = "[up] u = Conv(a0, up) v = Relu(u) [deep] d = Conv(v, deep) r = ReduceMean<keepdims=1>(d) y = Add(a0, r)"
    for name, channels, found in (("alone", 0, ["layer0"]), ("beside", 64, [])):
        folder = tmp_path / name
        folder.mkdir()
        save(folder, "HardSwish", 16, 1, tail if channels else "")
        if channels:
            proto, rng = onnx.load(folder / "m.onnx"), np.random.default_rng(1)
            for weight, shape in (("up", (channels, 16, 1, 1)), ("deep", (channels, channels, 3, 3))):
                values = rng.standard_normal(shape).astype(np.float32)
                proto.graph.initializer.append(numpy_helper.from_array(values, weight))
            onnx.save(proto, folder / "m.onnx")
        assert in_float(folder)[0] == found


def test_what_takes_no_longer_in_float_rounds_no_activations(tmp_path):
    names, (note,) = in_float(save(tmp_path, "Relu", 32, 7))
    assert names == [f"layer{number}" for number in range(7)]
    assert "would take an estimated 1.04 times as long" in note


def test_small_products_run_in_float_for_calls_of_integer_kernels_take_longer(tmp_path):
    names, (note,) = in_float(save_table(tmp_path, 13, 64, 64, 3))
    assert names == ["layer0", "layer1", "layer2"]
    assert "3 layers run in float on packed weights (layer0, layer1, layer2)" in note


@pytest.mark.parametrize("widths", [(784, 1024, 1024, 10), (40, 1000)], ids=["slower", "hardly faster"])
def test_large_products_of_one_row_stay_in_integers(tmp_path, widths):
    assert in_float(save_table(tmp_path, *widths)) == ([], ())


@pytest.mark.parametrize(
    "options", [{"float_islands": 0}, {"bops": 0.1}, {"target": "tensorrt"}, {"target": "portable"}], ids=str
)
def test_nothing_moves_where_islands_are_not_looked_for(swish, options):
    assert in_float(swish, **options)[0] == []


def test_rules_come_first(swish):
    rules = [{"match": "layer1", "activation_bits": 8}]
    assert "layer1" not in in_float(swish, rules=rules)[0]


def test_the_file_holds_packed_weights_and_fits_what_was_predicted(swish, tmp_path):
    spec = QuantizeSpec.model_validate(
        {"size": 2**40, "bits": [8], "rounding": "nearest", "equalize": "none"}
    )
    report = quantize(swish / "m.onnx", swish / "s.npz", spec, tmp_path)
    assert {layer.form for layer in report.layers} == {"weight_only"}
    assert abs(report.model.quantized_bytes - report.model.predicted_bytes) <= 32
    assert any("run in float on packed weights" in told for told in report.warnings)
