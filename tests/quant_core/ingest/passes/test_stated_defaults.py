"""Attributes that onnx infers no sizes without are stated, and stay when files are written."""

import onnx
import onnx_ir as ir
import pytest

from quant_core.export.writing.copying import copy_node
from quant_core.ingest import normalise

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'
STFT = """g (float[n,256] x) => (float[n,3,65,2] y) <int64 step = {64}, int64 length = {128}> {
    y = STFT(x, step, , length)
}"""
NORM = "g (float[n,4,5,6] x) => (float[n,4,5,6] y) { y = MeanVarianceNormalization(x) }"


def written(text):
    proto = ir.to_proto(normalise(ir.from_proto(onnx.parser.parse_model(HEADER + text))))
    for node in proto.graph.node:
        node.CopyFrom(copy_node(node, node.input, node.output, 21))
    return proto


@pytest.mark.parametrize(("text", "attribute"), [(STFT, "onesided"), (NORM, "axes")])
def test_files_pass_a_checker_that_infers_sizes(text, attribute):
    parsed = onnx.parser.parse_model(HEADER + text)
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.checker.check_model(parsed, full_check=True)
    proto = written(text)
    onnx.checker.check_model(proto, full_check=True)
    assert [a.name for a in proto.graph.node[0].attribute] == [attribute]


def test_what_is_said_stays():
    proto = written(STFT.replace("STFT(", "STFT<onesided=0>(").replace("65", "128"))
    assert proto.graph.node[0].attribute[0].i == 0
    onnx.checker.check_model(proto, full_check=True)
