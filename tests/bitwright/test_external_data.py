"""External data files, found without onnx, against files that onnx wrote."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitwright.external_data import external_files


def _tensor(name: str) -> TensorProto:
    return numpy_helper.from_array(np.arange(64, dtype=np.float32), name)


def _model() -> onnx.ModelProto:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["deep"], ["inner_out"])],
        "inner",
        [],
        [helper.make_tensor_value_info("inner_out", TensorProto.FLOAT, [64])],
        [_tensor("deep")],
    )
    nodes = [
        helper.make_node("If", ["yes"], ["chosen"], then_branch=inner, else_branch=inner),
        helper.make_node("Constant", [], ["constant"], value=_tensor("in attribute")),
        helper.make_node("Sum", ["x", "weight", "chosen", "constant"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "outer",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [64]),
            helper.make_tensor_value_info("yes", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64])],
        [_tensor("weight")],
    )
    return helper.make_model(graph)


def test_one_file_for_all(tmp_path: Path) -> None:
    onnx.save(
        _model(), tmp_path / "m.onnx", save_as_external_data=True, location="all.bin", size_threshold=0,
        convert_attribute=True,
    )  # fmt: skip
    assert external_files(tmp_path / "m.onnx") == ("all.bin",)


def test_one_file_for_each_tensor_wherever_it_lies(tmp_path: Path) -> None:
    model = _model()
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0,
        convert_attribute=True,
    )  # fmt: skip
    written = {path.name for path in tmp_path.iterdir()} - {"m.onnx"}
    assert len(written) >= 2
    assert set(external_files(tmp_path / "m.onnx")) == written


def test_only_files_inside_the_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(b"secret")
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "loop").symlink_to(folder / "loop")
    for place in (
        "../outside.bin",
        str(tmp_path / "outside.bin"),
        "link.bin",
        "missing.bin",
        ".",
        "a\0b",
        "a" * 5000,
        "loop",
    ):
        model = _model()
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=place)
        (folder / "m.onnx").write_bytes(model.SerializeToString())
        assert external_files(folder / "m.onnx") == ()


@pytest.mark.parametrize(
    "content", [b"", b"text that is no model", b"\x00" * 100, b"\xff" * 100, os.urandom(4096)]
)
def test_what_is_no_model_names_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert external_files(path) == ()


def test_a_model_cut_short_does_not_fail(tmp_path: Path) -> None:
    whole = _model().SerializeToString()
    path = tmp_path / "m.onnx"
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        assert external_files(path) == ()
