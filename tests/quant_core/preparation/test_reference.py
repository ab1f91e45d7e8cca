"""What a report says of the float model itself."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quant_core.preparation import prepare
from quant_core.spec import QuantizeSpec


def test_inputs_that_became_constants_are_not_all_named(tmp_path):
    # torch listed every weight as an input for years.
    random = np.random.default_rng(0)
    stored = {f"c{k}": random.standard_normal(16).astype(np.float32) for k in range(40)}
    stored["w"] = random.standard_normal((16, 16)).astype(np.float32)
    nodes = [helper.make_node("Add", [f"a{k}" if k else "x", f"c{k}"], [f"a{k + 1}"]) for k in range(40)]
    nodes.append(helper.make_node("MatMul", ["a40", "w"], ["y"], "head"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])]
        + [helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape) for name, a in stored.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=4),
        tmp_path / "m.onnx",
    )
    np.savez(tmp_path / "x.npz", x=random.standard_normal((16, 16)).astype(np.float32))
    job = prepare(tmp_path / "m.onnx", tmp_path / "x.npz", QuantizeSpec.model_validate({"effective_bits": 8}))
    (note,) = [note for note in job.notes if "became constants" in note]
    assert "'c0', 'c1'" in note
    assert note.endswith("'c19' and 21 more.")
