"""Transposed convolutions with a group for each channel, whose channels a folded normalization sets far apart."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.artifacts import MODEL
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A convolution, an upsampling one whose channels reach from 1 to 300, and what takes their scale away again."""
    folder, generator = tmp_path_factory.mktemp("net"), np.random.default_rng(0)
    reach = np.geomspace(1, 300, 16, dtype=np.float32)[:, None, None, None]

    def draw(*shape):
        return (generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    weights = {"a": draw(16, 3, 3, 3), "b": draw(16, 1, 4, 4) * reach}
    weights |= {"one": np.ones(16, np.float32), "zero": np.zeros(16, np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["s"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node(
            "ConvTranspose", ["r", "b"], ["t"], "up", group=16, strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("InstanceNormalization", ["t", "one", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16, 16, 16])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx"
    )
    np.savez(folder / "x.npz", x=generator.standard_normal((32, 3, 8, 8)).astype(np.float32))
    return folder


@pytest.mark.parametrize(("bits", "least"), [(8, 40), (4, 15), (2, 4)])
def test_each_channel_has_a_step(net, bits, least, tmp_path):
    given = {"effective_bits": bits, "effort": "fast", "device": "cpu", "activation_bits": "float"}
    quantize(net / "m.onnx", net / "x.npz", QuantizeSpec.model_validate(given), tmp_path / "out")
    x = np.random.default_rng(1).standard_normal((16, 3, 8, 8)).astype(np.float32)
    wanted, found = (
        ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for path in (net / "m.onnx", tmp_path / "out" / MODEL)
    )
    db = 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum())
    assert db > least
