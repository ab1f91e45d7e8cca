"""Samples that fit are loaded as they are; every misfit is one error that names file and field."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import onnx_ir as ir
import pytest

from quant_core.calibration import load_samples
from quant_core.errors import SamplesError

FLOAT, INT64, INT32 = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32


def _refusal(path, model) -> SamplesError:
    with pytest.raises(SamplesError) as caught:
        load_samples(path, model)
    assert caught.value.where == str(path)
    assert caught.value.remedy
    return caught.value


def test_real_samples(calibration_file, resnet20):
    samples = load_samples(calibration_file, ir.load(resnet20))
    assert samples.count == 512
    assert samples.batch is None
    assert samples.labels is not None
    assert samples.labels.dtype == np.int64
    assert samples.inputs["input"].shape == (512, 3, 32, 32)


def test_what_memory_lacks_for_is_not_called_damaged(image_graph, images, tmp_path, monkeypatch):
    def no_room(*_, **__):
        raise MemoryError

    np.savez(tmp_path / "s.npz", x=images)
    np.save(tmp_path / "s.npy", images)
    monkeypatch.setattr(np.lib.format, "read_array", no_room)
    monkeypatch.setattr(np, "load", no_room)
    for name in ("s.npz", "s.npy"):
        with pytest.raises(MemoryError):
            load_samples(tmp_path / name, image_graph)


def test_of_many_names_a_few_are_told(image_graph, tmp_path):
    np.savez(tmp_path / "s.npz", **{f"a{i}": np.zeros(1) for i in range(99)}, **{"b" * 999: np.zeros(1)})
    told = str(_refusal(tmp_path / "s.npz", image_graph))
    assert "'a0', 'a1', 'a2', 'a3', 'a4' and 95 more" in told
    np.savez(tmp_path / "s.npz", **{"b" * 999: np.zeros(1)})
    assert len(str(_refusal(tmp_path / "s.npz", image_graph))) < 600


def test_npy_serves_one_input(image_graph, images, tmp_path):
    np.save(tmp_path / "s.npy", images)
    samples = load_samples(tmp_path / "s.npy", image_graph)
    np.testing.assert_array_equal(samples.inputs["x"], images)
    assert samples.labels is None


def test_compressed_and_fortran_order(image_graph, images, tmp_path):
    np.savez_compressed(tmp_path / "s.npz", x=np.asfortranarray(images))
    samples = load_samples(tmp_path / "s.npz", image_graph)
    np.testing.assert_array_equal(samples.inputs["x"], images)
    assert samples.inputs["x"].flags.c_contiguous


def test_npy_for_two_inputs(graph, images, tmp_path):
    np.save(tmp_path / "s.npy", images)
    model = graph(a=(FLOAT, ["n", 3, 4, 4]), b=(FLOAT, ["n", 3, 4, 4]))
    assert "a, b" in _refusal(tmp_path / "s.npy", model).message


def test_labels_beside_one_number_a_sample(graph, npz):
    path = npz(x=np.zeros((4, 3), np.float32), labels=np.array([0, 1, 1, 0]))
    refusal = _refusal(path, graph(classes=1, x=(FLOAT, ["n", 3])))
    assert "one number a sample" in refusal.message
    assert "Leave the labels out" in refusal.remedy


def test_an_array_for_an_input_that_became_a_constant(graph, npz):
    model = graph(x=(FLOAT, ["n", 3]))
    value = ir.Value(name="scale", const_value=ir.tensor(np.ones(1, np.float32), name="scale"))
    model.graph.register_initializer(value)
    refusal = _refusal(npz(x=np.zeros((4, 3), np.float32), scale=np.ones((4, 1), np.float32)), model)
    assert "'scale'" in refusal.message
    assert "default value" in refusal.message
    assert "Leave" in refusal.remedy


def test_inputs_come_in_the_order_of_the_graph(graph, npz):
    model = graph(a=(INT64, ["n", "l"]), b=(INT64, ["n", "l"]))
    path = npz(b=np.zeros((4, 7), np.int64), a=np.ones((4, 7), np.int32))
    samples = load_samples(path, model)
    assert list(samples.inputs) == ["a", "b"]
    assert samples.inputs["a"].dtype == np.int64


def test_missing_and_extra_names_at_once(image_graph, images, npz):
    error = _refusal(npz(image=images, junk=images), image_graph)
    assert "lacks 'x'" in error.message
    assert "'image', 'junk'" in error.message


def test_initializers_among_graph_inputs_need_no_samples(image_graph, images, npz):
    weight = ir.Value(
        name="w",
        type=ir.TensorType(FLOAT),
        shape=ir.Shape([3]),
        const_value=ir.tensor(np.zeros(3, np.float32)),
    )
    image_graph.graph.inputs.append(weight)
    image_graph.graph.register_initializer(weight)
    assert list(load_samples(npz(x=images), image_graph).inputs) == ["x"]


@pytest.mark.parametrize("shape", [(6, 3, 4), (6, 1, 4, 4), (6, 4, 4, 3), (3, 4, 4), ()])
def test_wrong_shape(shape, image_graph, npz):
    error = _refusal(npz(x=np.zeros(shape, np.float32)), image_graph)
    assert "'x'" in error.message
    assert "float32 of shape [n, 3, 4, 4]" in error.remedy


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_floats_are_converted(kind, image_graph, images, npz):
    samples = load_samples(npz(x=images.astype(kind)), image_graph)
    assert samples.inputs["x"].dtype == np.float32
    np.testing.assert_allclose(samples.inputs["x"], images, rtol=1e-3)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.bool_, np.complex64, "U3", "M8[s]"])
def test_other_types_are_not_guessed(kind, image_graph, npz):
    error = _refusal(npz(x=np.zeros((6, 3, 4, 4), kind)), image_graph)
    assert "has type" in error.message


def test_floats_for_token_numbers(graph, npz):
    error = _refusal(npz(x=np.zeros((6, 5), np.float32)), graph(x=(INT64, ["n", "l"])))
    assert "int64" in error.remedy


def test_values_that_do_not_fit(graph, image_graph, images, npz):
    assert "cannot" in _refusal(npz(x=np.full((2, 5), 2**40)), graph(x=(INT32, ["n", 5]))).message
    assert "cannot" in _refusal(npz(x=images.astype(np.float64) * 1e300), image_graph).message
    unsigned = graph(x=(ir.DataType.UINT8, ["n", 5]))
    assert "cannot" in _refusal(npz(x=np.full((2, 5), -1)), unsigned).message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_samples(value, image_graph, images, npz):
    images[3, 1, 2, 0] = value
    error = _refusal(npz(x=images), image_graph)
    assert "'x'" in error.message
    assert "1 of 288 values, in sample 3 (counted from 0)" in error.message
    images[:2, 0, 0, 0] = value
    assert "3 of 288 values, in samples 0, 1, 3 (counted" in _refusal(npz(x=images), image_graph).message


def test_values_that_float32_cannot_square(image_graph, images, npz):
    images[3, 0, 0, 0] = 1e20
    error = _refusal(npz(x=images), image_graph)
    assert "'x' holds values up to 1e+20 (sample 3)" in str(error)
    images[3, 0, 0, 0] = np.finfo(np.float32).min  # as masks do
    assert load_samples(npz(x=images), image_graph).count == len(images)


def test_samples_of_halves_are_loaded_without_a_warning(graph, npz):
    model = graph(x=(ir.DataType.FLOAT16, ["n", 2]))
    assert load_samples(npz(x=np.full((3, 2), 65504, np.float16)), model).count == 3


def test_different_counts(graph, npz):
    model = graph(a=(INT64, ["n", 2]), b=(INT64, ["n", 2]))
    error = _refusal(npz(a=np.zeros((4, 2), np.int64), b=np.zeros((5, 2), np.int64)), model)
    assert "a 4, b 5" in error.message


def test_no_samples(image_graph, npz):
    assert "no samples" in _refusal(npz(x=np.zeros((0, 3, 4, 4), np.float32)), image_graph).message


def test_fixed_batch(graph, npz):
    model = graph(x=(FLOAT, [2, 5]))
    samples = load_samples(npz(x=np.zeros((6, 5), np.float32)), model)
    assert samples.batch == 2
    assert [batch.count for batch in samples.batches(100)] == [2, 2, 2]
    assert "multiple of 2" in _refusal(npz(x=np.zeros((5, 5), np.float32)), model).remedy


def test_fixed_batches_that_differ(graph, npz):
    model = graph(a=(FLOAT, [2, 5]), b=(FLOAT, [3, 5]))
    zeros = np.zeros((6, 5), np.float32)
    assert "a 2, b 3" in _refusal(npz(a=zeros, b=zeros), model).message


def test_sequence_input(image_graph, images, npz):
    image_graph.graph.inputs[0].type = ir.SequenceType(ir.TensorType(FLOAT))
    assert "no tensor" in _refusal(npz(x=images), image_graph).message


def test_string_input(graph, npz):
    error = _refusal(npz(x=np.array(["a", "b"])), graph(x=(ir.DataType.STRING, ["n"])))
    assert "'x' holds strings" in error.message


def test_samples_along_the_second_axis(graph, npz):
    error = _refusal(npz(x=np.zeros((7, 6, 5), np.float32)), graph(x=(FLOAT, [3, "n", 5])))
    assert "leaves the second open" in error.remedy
    fixed = _refusal(npz(x=np.zeros((7, 6, 5), np.float32)), graph(x=(FLOAT, [3, 6, 5])))
    assert "second" not in fixed.remedy


def test_scalar_input(graph, npz):
    assert "scalar" in _refusal(npz(x=np.float32(1)), graph(x=(FLOAT, []))).message
    assert "single number" in _refusal(npz(x=np.float32(1)), graph(x=(FLOAT, None))).message


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(5, np.int64), "5 labels for 6 samples"),
        (np.zeros(6, np.float32), "float32"),
        (np.zeros((6, 10), np.int64), "[6, 10]"),
        (np.full(6, -1), "-1"),
        (np.full(6, 10), "to 10"),
    ],
)
def test_labels_that_cannot_be_class_numbers(labels, words, image_graph, images, npz):
    assert words in _refusal(npz(x=images, labels=labels), image_graph).message


@pytest.mark.parametrize(
    ("columns", "limit"), [((4, 10), "to 9."), ((10, 4), "to 9."), ((4, "classes"), "from 0.")]
)
def test_labels_may_belong_to_any_output(columns, limit, image_graph, images, npz):
    image_graph.graph.outputs[0].shape = ir.Shape(["n", columns[0]])
    second = ir.Value(name="second", type=ir.TensorType(FLOAT), shape=ir.Shape(["n", columns[1]]))
    image_graph.graph.outputs.append(second)
    samples = load_samples(npz(x=images, labels=np.full(6, 9)), image_graph)
    assert samples.labels is not None
    assert limit in _refusal(npz(x=images, labels=np.full(6, -1)), image_graph).remedy


def test_labels_of_any_integer_type(image_graph, images, npz):
    samples = load_samples(npz(x=images, labels=np.arange(6, dtype=np.uint8)), image_graph)
    assert samples.labels is not None
    assert samples.labels.dtype == np.int64


def test_an_input_may_be_called_labels(graph, npz):
    samples = load_samples(npz(labels=np.zeros((4, 2), np.int64)), graph(labels=(INT64, ["n", 2])))
    assert samples.labels is None
    assert list(samples.inputs) == ["labels"]


class Tripwire:
    """Unpickling this would raise."""

    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


def test_python_objects_are_never_unpickled(image_graph, npz, tmp_path):
    objects = np.array([Tripwire()], dtype=object)
    assert "objects" in _refusal(npz(x=objects), image_graph).message
    np.save(tmp_path / "o.npy", objects)
    assert "objects" in _refusal(tmp_path / "o.npy", image_graph).message
    (tmp_path / "p.npz").write_bytes(pickle.dumps(Tripwire()))
    assert "neither" in _refusal(tmp_path / "p.npz", image_graph).message


def test_archive_of_something_else(image_graph, tmp_path):
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Tripwire()))
    assert "data.pkl" in _refusal(tmp_path / "t.npz", image_graph).message


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_truncated_file(share, suffix, image_graph, images, tmp_path):
    buffer = io.BytesIO()
    if suffix == "npz":
        np.savez(buffer, x=images)
    else:
        np.save(buffer, images)
    content = buffer.getvalue()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(content[: int(len(content) * share)])
    _refusal(path, image_graph)


def test_random_damage_ends_in_samples_or_in_an_error(image_graph, images, npz, tmp_path):
    content = npz(x=images).read_bytes()
    generator = np.random.default_rng(0)
    path = tmp_path / "damaged.npz"
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for position in generator.integers(0, len(content), 3):
            damaged[position] = generator.integers(0, 256)
        path.write_bytes(damaged)
        try:
            load_samples(path, image_graph)
        except SamplesError:
            refused += 1
    assert refused > 100


def test_header_that_claims_terabytes(image_graph, tmp_path):
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 3, 4, 4)}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    path = tmp_path / "huge.npy"
    path.write_bytes(buffer.getvalue() + bytes(100))
    assert "cut short" in _refusal(path, image_graph).message
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue() + bytes(100))
    assert "cut short" in _refusal(tmp_path / "huge.npz", image_graph).message


def test_missing_file(image_graph, tmp_path):
    assert "does not exist" in _refusal(tmp_path / "none.npz", image_graph).message


@pytest.mark.parametrize(
    ("labels", "remedy"),
    [
        (np.eye(6, dtype=np.float32), "labels.argmax(axis=1)"),
        (np.ones((6, 2), np.float32), "leave the labels out"),
        (np.arange(6.0), "labels.astype(numpy.int64)"),
        (np.zeros((6, 4, 4), np.int64), "leave the labels out"),
    ],
)
def test_labels_stored_otherwise_come_with_what_to_do(labels, remedy, image_graph, images, npz):
    assert remedy in _refusal(npz(x=images, labels=labels), image_graph).remedy


def test_a_column_of_labels(image_graph, images, npz):
    samples = load_samples(npz(x=images, labels=np.arange(6)[:, None]), image_graph)
    assert np.array_equal(samples.labels, np.arange(6))
