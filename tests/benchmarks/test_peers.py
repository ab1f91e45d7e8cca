"""Files of other tools: made in a process of their own, kept, judged; tables written between markers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.latency import OURS_4, W4A8, Timed, contestants, fastest_int8  # noqa: E402 - the benchmarks are not an installed package
from benchmarks.latency_nets import NETS  # noqa: E402
from benchmarks.peers.made import Contestant, Made, make  # noqa: E402
from benchmarks.peers.section import table, write_section  # noqa: E402


@pytest.fixture
def convolution(tmp_path, monkeypatch):
    """A net of one convolution, with samples."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    random = np.random.default_rng(0)
    weight = random.standard_normal((4, 3, 3, 3)).astype(np.float32)
    sizes = ["N", 3, 8, 8], ["N", 4, 6, 6]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip("xy", sizes, strict=True)]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        "net",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    onnx.save(model, tmp_path / "float.onnx")
    np.savez(
        tmp_path / "samples.npz", x=random.standard_normal((4, 3, 8, 8), np.float32), labels=np.arange(4)
    )
    return tmp_path / "float.onnx", tmp_path / "samples.npz"


def test_a_file_is_made_once_and_found_again(convolution, tmp_path):
    contestant = Contestant("int8", "static", {"count": 4}, int8=True)
    first = make(contestant, *convolution, tmp_path / "kept")
    assert first.failure == ""
    assert first.path is not None
    assert first.cpu_seconds > 0
    kinds = {tensor.data_type for tensor in onnx.load(first.path).graph.initializer}
    assert TensorProto.INT8 in kinds
    written = first.path.stat().st_mtime_ns
    assert make(contestant, *convolution, tmp_path / "kept") == first
    assert first.path.stat().st_mtime_ns == written
    other = Contestant("w4a8", "static", {"count": 4, "weights": "S4"})
    assert other.key != contestant.key


def test_a_tool_that_fails_says_why_and_is_not_asked_again(convolution, tmp_path):
    contestant = Contestant("4 bits", "nbits")
    made = make(contestant, *convolution, tmp_path / "kept")
    assert made.path is None
    assert made.bytes == 0
    assert "no matrix product" in made.failure
    assert make(contestant, *convolution, tmp_path / "kept") == made


def test_every_net_has_the_contestants_that_the_goals_speak_of():
    for net in NETS.values():
        found = contestants(net)
        names = [each.name for each in found]
        assert {OURS_4, W4A8} <= set(names)
        assert len({each.key for each in found}) == len(names)
        assert any(each.int8 for each in found)


def test_ratios_are_medians_inside_rounds():
    # The machine is three times slower in the last round; ratios do not see it.
    times = np.array([[4.0, 2.0, 1.0], [4.4, 2.0, 1.1], [12.0, 6.0, 3.0]])
    timed = Timed(1, times)
    assert timed.ratio(0, 2) == 4.0
    files = [
        Made(Contestant("a", "static", int8=True), Path("a"), 0.0),
        Made(Contestant("b", "ours"), Path("b"), 0.0),
    ]
    assert fastest_int8(files, timed) == 1  # the faster one is none of onnxruntime's


def test_a_section_is_replaced_between_its_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- speed -->\nold\n<!-- end of speed -->\nafter\n")
    text = table(["", "ms"], [["float", "10.0"], ["int8", "3.1"]])
    write_section(page, "speed", text)
    write_section(page, "speed", text)
    assert page.read_text() == f"before\n<!-- speed -->\n{text}\n<!-- end of speed -->\nafter\n"
    assert text.splitlines()[1] == "| ----- | ---: |"
    write_section(page, "speed", "### one\n\n1\n\n### two\n\n2\n")
    write_section(page, "speed", "### two\n\n3\n\n### three\n\n4\n")
    parts = "### one\n\n1\n\n### two\n\n3\n\n### three\n\n4"
    assert page.read_text() == f"before\n<!-- speed -->\n{parts}\n<!-- end of speed -->\nafter\n"
    with pytest.raises(ValueError, match="accuracy"):
        write_section(page, "accuracy", text)
