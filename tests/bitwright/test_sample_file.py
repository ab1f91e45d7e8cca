"""Files that are to be sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bitwright.errors import InvalidRequestError
from bitwright.sample_file import existing, sample_file


def test_only_files_under_names_that_can_be_sent_are_taken(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path / "f") + b"\xff"))
    folder.mkdir()
    for name in (b"m\xc3\xbc.npz", b"m\xff.npz"):
        (folder / os.fsdecode(name)).write_bytes(b"")
    assert existing(folder / "mü.npz") == folder / "mü.npz"
    with pytest.raises(InvalidRequestError, match="no UTF-8"):
        existing(folder / os.fsdecode(b"m\xff.npz"))
    with pytest.raises(InvalidRequestError, match="no such file"):
        existing(folder / "none.npz")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "A NoneType is no samples."),
        (5, "A int is no samples."),
        ({}, "There are no arrays."),
        ([], "There are no samples."),
        ([1, 2], "Among the batches a int is no batch."),
        ({"x": None}, "A NoneType is no array of numbers."),
        (np.array([{}]), "A ndarray is no array of numbers."),
    ],
)
def test_what_are_no_samples_is_told_by_what_it_is(data: Any, told: str, tmp_path: Path) -> None:
    net = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> net (float[n, 2] x) => (float[n, 2] y) { y = Relu(x) }"""
    )
    onnx.save(net, tmp_path / "net.onnx")
    with pytest.raises(InvalidRequestError) as refused:
        sample_file(data, tmp_path / "net.onnx", tmp_path)
    assert (refused.value.message, refused.value.where) == (told, "data")
    assert refused.value.remedy
