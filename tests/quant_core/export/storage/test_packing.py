from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quant_core.errors import SpecError
from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.export.storage.packing import blank_planes, pack, plane_bytes
from quant_core.export.storage.plain_operators import PlainOperators
from quant_core.export.storage.unpacking import LocalFunctions

WIDTHS = [2, 3, 4, 5, 6, 8]


def random_codes(bits, shape, seed=0):
    return np.random.default_rng(seed).integers(-(1 << (bits - 1)), 1 << (bits - 1), shape).astype(np.int8)


def read(planes, bits):
    """Codes as onnx and numpy read them."""
    low, *high = (
        numpy_helper.to_array(TensorProto(data_type=plane.dtype, dims=plane.dims, raw_data=plane.data))
        for plane in planes
    )
    if not high:
        return low.astype(int)
    width = {3: 2, 5: 4, 6: 4}[bits]
    upper = high[0] if bits == 6 else np.unpackbits(high[0], count=low.size, bitorder="little")
    return (upper.astype(int).reshape(low.shape) << width) + low.astype(int) - (1 << (bits - 1))


@given(st.sampled_from(WIDTHS), st.lists(st.integers(1, 7), min_size=0, max_size=4), st.integers(0, 2**32))
def test_others_read_what_is_packed(bits, shape, seed):
    codes = random_codes(bits, shape, seed)
    planes = pack(codes, bits)
    np.testing.assert_array_equal(read(planes, bits), codes)
    assert tuple(len(plane.data) for plane in planes) == plane_bytes(codes.size, bits)
    blank = blank_planes(codes.shape, bits)
    assert [replace(plane, data=b"") for plane in planes] == list(blank)


def unpacking(codes, bits, storage, opset):
    """A model that adds the codes, stored packed, to x."""
    writer, shape = GraphWriter(["x", "y"], storage), codes.shape
    int8 = writer.stored_codes("w", codes, bits)
    as_float = writer.node("Cast", [int8], to=TensorProto.FLOAT)
    writer.node("Add", ["x", as_float], ["y"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in "xy"]
    graph = helper.make_graph(writer.nodes, "g", value[:1], value[1:], writer.initializers)
    domains = [helper.make_opsetid("", opset)]
    if writer.functions:
        domains.append(helper.make_opsetid("bitwright", 1))
    version = 8 if opset == 18 else 13
    model = helper.make_model(graph, opset_imports=domains, functions=writer.functions, ir_version=version)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("shape", [(1,), (8,), (3, 5), (4, 3, 3, 3)])
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("opset", [None, 18, 21, 25])
def test_runtimes_unpack_the_same_codes(opset, bits, shape, level):
    codes = random_codes(bits, shape)
    storage = LocalFunctions() if opset is None else PlainOperators(opset)
    model = unpacking(codes, bits, storage, opset or 25)
    feeds = {"x": np.zeros(shape, dtype=np.float32)}
    if opset is not None and level == "ORT_DISABLE_ALL":
        assert not model.functions
        assert {entry.domain for entry in model.opset_import} == {""}
        np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, feeds)[0], codes)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    y = session.run(None, feeds)[0]
    np.testing.assert_array_equal(y, codes)


def test_widths_without_a_layout_are_refused():
    with pytest.raises(SpecError, match="7-bit"):
        pack(np.zeros(3, dtype=np.int8), 7)


def test_constants_are_stored_once_and_names_are_free():
    writer = GraphWriter(["0", "1"], LocalFunctions())
    first = writer.constant(np.array([1.0, 2.0], dtype=np.float32))
    assert first == "2"
    assert writer.constant(np.array([1.0, 2.0], dtype=np.float32)) == first
    assert writer.constant(np.array([[1.0, 2.0]], dtype=np.float32)) != first
    assert writer.constant(np.array([1.0, 2.0], dtype=np.float64)) != first
