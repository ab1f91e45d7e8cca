"""Layer normalization is not fused with the addition in front of it, and computes the same."""

import numpy as np
import onnx
import pytest

from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import portable
from tests.quant_core.export.networks import HEADER, Net, optimized_operators

TEXT = """g (float[1,6,32] x) => (float[1,6,32] y) {
    a = MatMul(x, w1)
    s = Add(a, x)
    n = LayerNormalization(s, scale, bias)
    b = MatMul(n, w2)
    t = Add(b, n)
    y = LayerNormalization(t, scale, bias2)
}"""
SHAPES = {"w1": (32, 32), "w2": (32, 32), "scale": (32,), "bias": (32,), "bias2": (32,)}


def exported(text, shapes, path, target=ORT_CPU, bits=8):
    net = Net((HEADER + text, shapes, set(), {}))
    net.export({layer.name: bits for layer in net.layers}, 8, path, target)
    return net, {tensor.name: list(tensor.dims) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("bits", [4, 32])
def test_no_addition_is_fused(bits, tmp_path):
    path = tmp_path / "model.onnx"
    net, dims = exported(TEXT, SHAPES, path, bits=bits)
    assert dims["scale"] == [1, 32]
    apart, given = optimized_operators(path), net.run(path)
    assert apart.count("LayerNormalization") == 2
    plain = onnx.load(path)
    for tensor in plain.graph.initializer:
        if tensor.name == "scale":
            del tensor.dims[0]
    onnx.save(plain, path)
    fused, expected = optimized_operators(path), net.run(path)
    assert "SkipLayerNormalization" in fused  # else there is nothing to keep apart any more
    assert np.abs(given - expected).max() < (0.1 if bits == 4 else 1e-5)


def test_scales_with_other_readers_vectors_and_other_targets_stay(tmp_path):
    shared = TEXT.replace("y = Layer", "z = Layer").replace("}", "    y = Mul(z, scale)\n}")
    assert exported(shared, SHAPES, tmp_path / "shared.onnx")[1]["scale"] == [32]
    vector = """g (float[32] x, float[1,32] r) => (float[1,32] y) {
        s = Add(x, x)
        n = LayerNormalization(s, scale)
        m = Add(r, n)
        y = MatMul(m, w1)
    }"""
    some = {"w1": (32, 32), "scale": (32,)}
    assert exported(vector, some, tmp_path / "vector.onnx")[1]["scale"] == [32]
    assert exported(TEXT, SHAPES, tmp_path / "portable.onnx", portable(21))[1]["scale"] == [32]


def test_shapes_of_a_model_are_inferred_once(tmp_path, monkeypatch):
    net, _ = exported(TEXT, SHAPES, tmp_path / "once.onnx")
    monkeypatch.setattr("quant_core.export.writing.norms_apart.find_ranks", None)
    again = tmp_path / "again.onnx"
    net.export({layer.name: 8 for layer in net.layers}, 8, again, ORT_CPU)
    assert {t.name: list(t.dims) for t in onnx.load(again).graph.initializer}["scale"] == [1, 32]
    with pytest.raises(TypeError):
        exported(TEXT, SHAPES, tmp_path / "other.onnx")
