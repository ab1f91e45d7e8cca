"""Weights stay out of the parser's memory, and nothing about the model changes by that."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from quant_core.errors import ModelError
from quant_core.executor import compile_model
from quant_core.ingest import normalise, read_model
from quant_core.ingest.reading.lean_parse import LARGE, attach_own_data, read_skeleton


def chain(layers: int, width: int) -> onnx.ModelProto:
    """Products one after the other, each with a weight of its own."""
    rng = np.random.default_rng(0)
    nodes, stored, name = [], [], "x"
    for layer in range(layers):
        weight = rng.standard_normal((width, width), dtype=np.float32) / width**0.5
        stored.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [name, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]))
        name = f"r{layer}"
    ends = [helper.make_tensor_value_info(end, 1, ["n", width]) for end in ("x", name)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_nothing_changes_but_the_place_of_the_weights(resnet20, tmp_path):
    large = tmp_path / "large.onnx"
    large.write_bytes(chain(3, 200).SerializeToString())
    for path in (resnet20, large):
        whole = path.read_bytes()
        skeleton = read_skeleton(path)
        assert skeleton is not None
        assert len(skeleton) < len(whole) - LARGE
        lean, full = read_model(path).model, ir.serde.deserialize_model(onnx.load(path))
        assert list(lean.graph.initializers) == list(full.graph.initializers)
        for name, value in full.graph.initializers.items():
            found = lean.graph.initializers[name].const_value
            assert found.dtype == value.const_value.dtype
            np.testing.assert_array_equal(found.numpy(), value.const_value.numpy())
            assert found.numpy().flags.aligned
            assert not found.numpy().flags.writeable
        assert ir.to_proto(lean).SerializeToString() == ir.to_proto(full).SerializeToString()
        assert read_model(path).file_bytes == len(whole)


@pytest.mark.parametrize("kind", [np.float16, np.int64, np.float64])
def test_types(kind, tmp_path):
    model = chain(1, 200)
    model.graph.initializer.append(numpy_helper.from_array(np.arange(40_000).astype(kind), "more"))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    found = read_model(path).model.graph.initializers["more"].const_value
    np.testing.assert_array_equal(found.numpy(), np.arange(40_000).astype(kind))


def self_reference(kind, path):
    model = chain(1, 200)
    weight = model.graph.initializer[0]
    weight.data_type = kind
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=path.name)
    weight.external_data.add(key="offset", value="8")
    model.doc_string = " " * 200_000
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(LARGE, np.float32), "spare"))
    path.write_bytes(model.SerializeToString())
    return path


def test_a_file_may_refer_to_itself(tmp_path):
    path = self_reference(onnx.TensorProto.FLOAT, tmp_path / "model.onnx")
    found = read_model(path).model.graph.initializers["w0"].const_value
    assert found.numpy().tobytes() == path.read_bytes()[8 : 8 + 160_000]


def test_types_that_share_bytes_stay_references(tmp_path):
    path = self_reference(onnx.TensorProto.INT4, tmp_path / "model.onnx")
    found = read_model(path, quantized_parts="keep").model.graph.initializers["w0"].const_value
    assert isinstance(found, ir.ExternalTensor)
    packed = np.frombuffer(path.read_bytes()[8 : 8 + 20_000], np.uint8)
    low = (packed & 15).astype(np.int8)
    np.testing.assert_array_equal(
        found.numpy().reshape(-1)[::2].astype(np.int8), np.where(low > 7, low - 16, low)
    )


def test_a_second_name_of_the_file_is_no_obstacle(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(chain(2, 200).SerializeToString())
    os.link(path, tmp_path / "again.onnx")
    (tmp_path / "link.onnx").symlink_to(path)
    for name in ("again.onnx", "link.onnx"):
        assert read_model(tmp_path / name).file_bytes == path.stat().st_size


def test_damage_is_still_seen(tmp_path):
    whole = chain(2, 200).SerializeToString()
    path = tmp_path / "model.onnx"
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for position in rng.integers(0, 60, 2):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged[: rng.choice([len(damaged), len(damaged) // 2])])
        try:
            read_model(path)
        except ModelError:
            refused += 1
    assert refused > 20


def test_weights_are_held_once(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(chain(3, 200).SerializeToString())
    model = normalise(read_model(path).model)
    program = compile_model(model)
    for name in ("w0", "w1", "w2"):
        held = model.graph.initializers[name].const_value.numpy()
        assert np.shares_memory(held, program.weights[name].numpy())


def test_a_file_cut_short_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(chain(1, 200).SerializeToString())
    model = ir.serde.deserialize_model(onnx.ModelProto.FromString(read_skeleton(path)))
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ModelError, match="ended inside of tensor 'w0'"):
        attach_own_data(model, path)


MEASURE = """
import sys
from pathlib import Path
import torch
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise, read_model
torch.set_num_threads(1)
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
torch.relu(torch.zeros(8, 8) @ torch.zeros(8, 8))
before = peak()
model = normalise(read_model(Path(sys.argv[1])).model)
find_layers(model)
program = compile_model(model)
with torch.no_grad():
    program.evaluate({"x": torch.randn(16, 2048)})
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("external", [False, True])
def test_peak_from_file_to_outputs(external, tmp_path):
    model = chain(16, 2048)
    weights = 16 * 2048 * 2048 * 4
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=external, location="w.bin")
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    assert int(found.stdout) < 1.3 * weights
