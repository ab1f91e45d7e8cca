"""Where a file loses, held against files of onnxruntime's own tools and weights spoiled by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from rich.console import Console

from bitwright.cli.debug import print_findings
from quant_core.debugging import debug
from quant_core.errors import ModelError, SpecError
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec
from tests.networks import network
from tests.quant_core.export.networks import HEADER, Net

WIDTH, SAMPLES = 24, 40


@pytest.fixture
def net(tmp_path):
    """Three products with a Relu between, and samples."""
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 5 for name in "abc"}
    model, tensor = tmp_path / "net.onnx", "x"
    nodes = []
    for name in weights:
        nodes.append(helper.make_node("MatMul", [tensor, f"w_{name}"], [f"y_{name}"], name=name))
        tensor = f"y_{name}"
        if name != "c":
            nodes.append(helper.make_node("Relu", [tensor], [f"r_{name}"], name=f"relu_{name}"))
            tensor = f"r_{name}"
    tensors = [numpy_helper.from_array(weight, f"w_{name}") for name, weight in weights.items()]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH])] for name in ("x", "y_c")]
    proto = helper.make_model(
        helper.make_graph(nodes, "net", *ends, tensors), opset_imports=[helper.make_opsetid("", 21)]
    )
    proto.ir_version = 10
    onnx.save(proto, model)
    samples = random.standard_normal((SAMPLES, WIDTH)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=samples)
    return model, tmp_path / "samples.npz", weights, samples


def _with_codes(model, path, steps):
    proto = onnx.load(model)
    for tensor in list(proto.graph.initializer):
        step = np.float32(steps[tensor.name.removeprefix("w_")])
        codes = np.clip(np.round(numpy_helper.to_array(tensor) / step), -128, 127).astype(np.int8)
        name = tensor.name
        proto.graph.initializer.remove(tensor)
        proto.graph.initializer.extend(
            [numpy_helper.from_array(codes, f"{name}_q"), numpy_helper.from_array(step, f"{name}_s")]
        )
        proto.graph.node.insert(0, helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_s"], [name]))
    onnx.save(proto, path)


def _run(samples, weights):
    a, b, c = (weights[name] for name in "abc")
    return np.maximum(np.maximum(samples @ a, 0) @ b, 0) @ c


def _db(reference, values):
    return 10 * np.log10((reference**2).sum() / ((values - reference) ** 2).sum())


def test_a_spoiled_layer_comes_first_with_the_gain_that_numpy_finds(net, tmp_path):
    model, data, weights, samples = net
    steps = {"a": 1e-2, "b": 0.15, "c": 1e-2}
    _with_codes(model, tmp_path / "quantized.onnx", steps)
    rounded = {name: np.round(weights[name] / step) * step for name, step in steps.items()}
    reference, x = _run(samples, weights), samples
    before = _db(reference, _run(x, rounded))
    after = _db(reference, _run(x, rounded | {"b": weights["b"]}))

    found = debug(model, tmp_path / "quantized.onnx", data, worst=2, samples=SAMPLES)

    assert (found.model, found.quantized) == (
        str(model),
        str(tmp_path / "quantized.onnx"),
    )  # often named alike
    assert found.not_found == ()
    assert found.samples == SAMPLES
    assert found.output_sqnr_db == pytest.approx(before, abs=0.01)
    first, second, third = found.layers
    assert first.name == "b"
    assert first.float_gain_db == pytest.approx(after - before, abs=0.02)
    assert first.share == pytest.approx(1 - 10 ** ((before - after) / 10), abs=0.01)
    assert second.float_gain_db is not None
    assert third.float_gain_db is None  # only the worst two were tried
    hidden = np.maximum(x @ rounded["a"], 0)
    assert first.own_sqnr_db == pytest.approx(_db(hidden @ weights["b"], hidden @ rounded["b"]), abs=0.01)
    assert 5 < first.byte_gain_db <= first.float_gain_db + 0.5


def test_all_outputs_count_in_shares_of_their_own_size(net, tmp_path):
    model, data, weights, samples = net
    proto = onnx.load(model)
    kinds = {"y_a": TensorProto.FLOAT, "best": TensorProto.INT64}
    proto.graph.node.append(helper.make_node("ArgMax", ["y_a"], ["best"], axis=1))
    for name, kind in kinds.items():  # before the output that the spoiled layer reaches
        sizes = ["N", WIDTH] if name == "y_a" else ["N", 1]
        proto.graph.output.insert(0, helper.make_tensor_value_info(name, kind, sizes))
    onnx.save(proto, model)
    steps = {"a": 1e-2, "b": 0.15, "c": 1e-2}
    _with_codes(model, tmp_path / "quantized.onnx", steps)
    rounded = {name: np.round(weights[name] / step) * step for name, step in steps.items()}

    def mean_db(stored):
        shares = [10 ** (-_db(samples @ weights["a"], samples @ stored["a"]) / 10)]
        shares.append(10 ** (-_db(_run(samples, weights), _run(samples, stored)) / 10))
        return -10 * np.log10(np.mean(shares))

    found = debug(model, tmp_path / "quantized.onnx", data, worst=1, samples=SAMPLES)
    assert set(found.output.split(", ")) == {"y_a", "y_c"}
    assert found.output_sqnr_db == pytest.approx(mean_db(rounded), abs=0.02)
    gain = mean_db(rounded | {"b": weights["b"]}) - mean_db(rounded)
    assert found.layers[0].name == "b"
    assert found.layers[0].float_gain_db == pytest.approx(gain, abs=0.05)
    assert gain > 5


def test_integer_products_with_inputs_rounded_at_run_time_are_understood(net, tmp_path):
    model, data, _, _ = net
    quantize_dynamic(model, tmp_path / "dynamic.onnx", weight_type=QuantType.QInt8)
    found = debug(model, tmp_path / "dynamic.onnx", data, worst=3)
    assert found.not_found == ()
    assert sorted(layer.name for layer in found.layers) == ["a", "b", "c"]
    for layer in found.layers:
        assert 25 < layer.own_sqnr_db < 60  # 8 bits with one scale a tensor
        assert layer.float_gain_db is not None


def test_a_file_of_another_model_is_refused(net, tmp_path):
    model, data, _, _ = net
    proto = onnx.load(model)
    for node in proto.graph.node:
        node.name = f"other_{node.name}"
        for names in (node.input, node.output):
            names[:] = [name if name.startswith("w_") or name == "x" else f"other_{name}" for name in names]
    proto.graph.output[0].name = "other_y_c"
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="no layer of the float model"):
        debug(model, tmp_path / "other.onnx", data)


def test_what_is_no_model_is_refused(net, tmp_path):
    model, data, *_ = net
    with pytest.raises(ModelError, match="not an ONNX file"):
        debug(model, data, data)


@pytest.mark.parametrize(
    ("report", "wrong"),
    [
        (None, "bare/report.json: it cannot be read"),
        ('{"version": "0"}', "report.json: it is not what a quantization of this version writes at model"),
    ],
)
def test_a_folder_that_no_job_wrote_is_refused(net, tmp_path, report, wrong):
    model, data, *_ = net
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "model.onnx").write_bytes(model.read_bytes())
    if report is not None:
        (tmp_path / "bare" / "report.json").write_text(report)
    with pytest.raises(SpecError) as refused:
        debug(model, tmp_path / "bare", data)
    assert wrong in str(refused.value)


def test_layers_that_have_eight_bits_are_not_pinned_to_them(net, tmp_path):
    model, data, *_ = net
    spec = QuantizeSpec.model_validate(
        {"size": 1, "bits": [4, 8], "pin": {"a": 8, "b": 4, "c": 8}, "device": "cpu"}
    )
    quantize(model, data, spec, tmp_path / "job")
    found = {layer.name: layer for layer in debug(model, tmp_path / "job", data).layers}
    assert {name: layer.weight_bits for name, layer in found.items()} == {"a": 8, "b": 4, "c": 8}
    assert all(layer.float_gain_db is not None for layer in found.values())
    assert [name for name, layer in found.items() if layer.byte_gain_db is not None] == ["b"]


def test_the_file_of_a_job_stands_for_its_folder_and_a_copy_elsewhere_for_itself(net, tmp_path):
    model, data, *_ = net
    quantize(model, data, QuantizeSpec.model_validate({"size": 1, "bits": [8]}), tmp_path / "job")
    of_folder = debug(model, tmp_path / "job", data)
    assert debug(model, tmp_path / "job" / "model.onnx", data) == of_folder
    (tmp_path / "model.onnx").write_bytes((tmp_path / "job" / "model.onnx").read_bytes())
    copy = debug(model, tmp_path / "model.onnx", data)
    assert {layer.weight_bits for layer in of_folder.layers} == {8}
    assert {layer.weight_bits for layer in copy.layers} == {None}


def test_layers_of_two_widths_are_told_with_both(net, tmp_path):
    model, data, *_ = net
    job = tmp_path / "job"
    quantize(model, data, QuantizeSpec.model_validate({"size": 1, "bits": [8], "device": "cpu"}), job)
    report = json.loads((job / "report.json").read_text())
    report["layers"][1]["narrow_bits"] = 4
    (job / "report.json").write_text(json.dumps(report))
    found = debug(model, job, data, samples=4)
    layers = {layer.name: layer for layer in found.layers}
    assert (layers["b"].weight_bits, layers["b"].narrow_bits) == (8, 4)
    assert layers["b"].byte_gain_db is not None  # some channels have fewer
    assert layers["a"].narrow_bits is None
    console = Console(file=StringIO(), width=120)
    print_findings(found, 3, console)
    assert "8 and 4" in console.file.getvalue()


def test_no_message_holds_the_weights_of_the_float_model(net, tmp_path, monkeypatch):
    """One of 2 GiB could not be written."""
    model, data, weights, _ = net
    _with_codes(model, tmp_path / "quantized.onnx", dict.fromkeys(weights, 1e-2))
    written, save = [], onnx.save

    def watched(proto, *where, **options):
        written.append(proto.ByteSize())
        save(proto, *where, **options)

    monkeypatch.setattr(onnx, "save", watched)
    debug(model, tmp_path / "quantized.onnx", data, worst=1)
    assert written
    assert max(written) < sum(weight.nbytes for weight in weights.values()) / 2


@pytest.mark.parametrize("window", [3, 5])
def test_layers_whose_input_is_laid_out_anew_are_compared_on_what_it_was(window, tmp_path):
    text = f"""{HEADER}g (float[n,3,16,16] x) => (float[n,c,h,w] y) {{
        a = Conv<kernel_shape=[{window},{window}], strides=[2,2]>(x, w1)
        r = Relu(a)
        y = Conv<kernel_shape=[1,1]>(r, w2)
    }}"""
    net = Net((text, {"w1": (32, 3, window, window), "w2": (4, 32, 1, 1)}, set(), {}))
    ir.save(net.model, tmp_path / "net.onnx")
    np.savez(tmp_path / "samples.npz", **net.feeds)
    found = []
    for target in (ORT_CPU, replace(ORT_CPU, lays_out_inputs=False)):
        net.export({layer.name: 4 for layer in net.layers}, 8, tmp_path / "model.onnx", target=target)
        found.append(debug(tmp_path / "net.onnx", tmp_path / "model.onnx", tmp_path / "samples.npz"))
    laid_out, as_given = found
    assert laid_out.not_found == ()
    for one, other in zip(laid_out.layers, as_given.layers, strict=True):
        assert one.own_sqnr_db == pytest.approx(other.own_sqnr_db, abs=1e-3)
        assert one.float_gain_db == pytest.approx(other.float_gain_db, abs=1e-3)


def test_an_expert_that_rounding_sends_others_to_is_judged_by_its_own_error(net, tmp_path):
    _, data, weights, _ = net
    proto = network(
        f"""g (float[N,{WIDTH}] x) => (float[N,{WIDTH}] z) {{
            y_a = MatMul(x, w_a)
            first = Constant<value_int=0>()
            gate = Gather<axis=1>(y_a, first)
            none = Constant<value_float=0.0>()
            chosen = Greater(gate, none)
            rows = Compress<axis=0>(y_a, chosen)
            y_b = MatMul(rows, w_b)
            found = NonZero(chosen)
            places = Transpose(found)
            z = ScatterND(y_a, places, y_b)
        }}""",
        {f"w_{name}": weights[name] for name in "ab"},
    )
    onnx.save(proto, tmp_path / "experts.onnx")
    _with_codes(tmp_path / "experts.onnx", tmp_path / "quantized.onnx", {"a": 0.3, "b": 1e-2})
    found = debug(tmp_path / "experts.onnx", tmp_path / "quantized.onnx", data)
    worst, expert = found.layers
    assert expert.sqnr_db is None
    assert expert.own_sqnr_db > worst.own_sqnr_db + 20
    assert worst.sqnr_db == pytest.approx(worst.own_sqnr_db, abs=1e-3)
    print_findings(found, 10, Console(file=(told := StringIO()), width=200))
    assert "None" not in told.getvalue()


def test_padding_may_be_a_node_of_its_own_in_the_file(tmp_path):
    """As in files of other tools, where Pad and Slice of causal convolutions stay."""
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal((8, 8, 3)).astype(np.float32) / 5 for name in "ab"}
    proto = network(
        """g (float[N,8,20] x) => (float[N,8,20] y) {
            before = Constant<value = int64[6] {0, 0, 2, 0, 0, 0}>()
            padded = Pad(x, before)
            a = Conv(padded, w_a)
            r = Relu(a)
            longer = Conv<pads=[2,2]>(r, w_b)
            start = Constant<value_ints=[0]>()
            end = Constant<value_ints=[-2]>()
            axis = Constant<value_ints=[2]>()
            y = Slice(longer, start, end, axis)
        }""",
        {f"w_{name}": weight for name, weight in weights.items()},
    )
    for place, node in enumerate(proto.graph.node):
        node.name = f"n{place}"
    onnx.save(proto, tmp_path / "net.onnx")
    np.savez(tmp_path / "samples.npz", x=random.standard_normal((SAMPLES, 8, 20)).astype(np.float32))
    _with_codes(tmp_path / "net.onnx", tmp_path / "quantized.onnx", {"a": 0.1, "b": 0.01})
    found = debug(tmp_path / "net.onnx", tmp_path / "quantized.onnx", tmp_path / "samples.npz")
    assert found.not_found == ()
    worst, other = found.layers
    assert other.sqnr_db is None  # it has two places more in the file
    assert worst.sqnr_db == pytest.approx(worst.own_sqnr_db, abs=1e-3)
    assert other.own_sqnr_db > worst.own_sqnr_db + 15
    assert worst.share == pytest.approx(1, abs=0.1)
