"""Ranges seen through the executor are those of onnxruntime."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from quant_core.calibration import RangeWatch, Samples, activation_ranges, load_samples, ranges_in_parts
from quant_core.calibration.activation_range import as_it_lies, measure
from quant_core.errors import CancelledError, NonFiniteError
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise


def test_ranges_of_resnet20_are_those_onnxruntime_gives(calibration_file, resnet20):
    model = normalise(ir.load(resnet20))
    samples = load_samples(calibration_file, model).take(np.arange(48))
    names = [layer.inputs[0] for layer in find_layers(model)]
    ranges = activation_ranges(compile_model(model), samples, names, batch_size=20)
    assert list(ranges) == list(dict.fromkeys(names))
    proto = ir.to_proto(model)
    inner = [name for name in ranges if name != "input"]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = dict(zip(inner, session.run(inner, samples.inputs), strict=True)) | samples.inputs
    for name, seen in ranges.items():
        assert seen.count == found[name].size
        assert seen.minimum == pytest.approx(found[name].min(), rel=1e-3, abs=1e-4)
        assert seen.maximum == pytest.approx(found[name].max(), rel=1e-3, abs=1e-4)


class Doubling:
    """A program of one tensor."""

    device = torch.device("cpu")

    def evaluate(self, feeds, outputs=None):
        return {"y": feeds["x"] * 2}


def test_progress_and_stopping():
    samples = Samples({"x": np.ones((10, 2), np.float32)})
    seen = []
    activation_ranges(Doubling(), samples, ["y"], batch_size=4, on_batch=lambda *step: seen.append(step))
    assert seen == [(4, 10), (8, 10), (10, 10)]

    def stop(done, count):
        raise CancelledError

    with pytest.raises(CancelledError):
        activation_ranges(Doubling(), samples, ["y"], batch_size=4, on_batch=stop)


def test_result_does_not_depend_on_the_batch_size():
    generator = np.random.default_rng(0)
    samples = Samples({"x": generator.standard_normal((30, 50)).astype(np.float32)})
    whole, parts = (activation_ranges(Doubling(), samples, ["y", "x"], batch_size=size) for size in (30, 7))
    for name in ("x", "y"):
        np.testing.assert_array_equal(whole[name].counts, parts[name].counts)


def test_channels_last_are_told_from_without_a_copy():
    """Extremes of a tensor whose channels lie last take torch up to 20 times as long as those of one row of numbers."""
    value = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    last = value.contiguous(memory_format=torch.channels_last)
    assert as_it_lies(last).data_ptr() == last.data_ptr()
    watch = RangeWatch(["y"])
    watch.add({"y": last})
    seen, expected = watch.ranges["y"], measure(value)
    assert (seen.minimum, seen.maximum, seen.zeros) == (expected.minimum, expected.maximum, expected.zeros)
    np.testing.assert_array_equal(seen.counts, expected.counts)


class Counting(Doubling):
    """The same, with a count of samples that it ran."""

    def __init__(self):
        self.samples = 0

    def evaluate(self, feeds, outputs=None):
        self.samples += len(feeds["x"])
        return super().evaluate(feeds, outputs)


@pytest.mark.parametrize(
    ("watched", "run"),
    [
        ((("x", "y"), ("y", "x", "z")), 0),
        ((("x", "y"), ()), 10),
        ((("x", "y"),), 10),
        ((("x",), ("x", "y")), 20),
        ((), 30),
    ],
)
def test_parts_give_what_the_whole_gives_and_what_was_watched_is_not_run_again(watched, run):
    values = np.random.default_rng(0).standard_normal((30, 50)).astype(np.float32)
    parts = Samples({"x": values[:20]}), Samples({"x": values[20:]})
    program, told = Counting(), []
    watches = [RangeWatch(names) for names in watched]
    for part, watch in zip((values[:20], values[20:]), watches, strict=False):
        for some in np.split(part, 5):
            x = torch.from_numpy(some)
            watch.add({"x": x, "y": 2 * x, "z": 3 * x})
    found = ranges_in_parts(
        program,
        parts,
        ["y", "x"],
        watches,
        batch_size=4,
        on_batch=lambda *step: told.append(step),
    )
    expected = activation_ranges(Doubling(), Samples({"x": values}), ["y", "x"], batch_size=30)
    assert list(found) == ["y", "x"]
    for name, seen in expected.items():
        np.testing.assert_array_equal(found[name].counts, seen.counts)
        assert (found[name].minimum, found[name].maximum) == (seen.minimum, seen.maximum)
        assert (found[name].width, found[name].origin) == (seen.width, seen.origin)
    assert program.samples == run
    assert told[-1] == (30, 30)


def test_a_part_that_comes_twice_counts_once():
    samples = Samples({"x": np.ones((3, 2), np.float32)})
    found = ranges_in_parts(Doubling(), (samples, samples), ["y"], batch_size=2)
    assert found["y"].count == 6


def test_of_a_part_that_comes_twice_either_watch_will_do():
    samples = Samples({"x": np.ones((3, 2), np.float32)})
    program, watch = Counting(), RangeWatch(["y"])
    watch.add({"y": torch.full((3, 2), 2.0)})
    for watches in ((watch, RangeWatch(["y"])), (RangeWatch(["y"]), watch)):
        found = ranges_in_parts(program, (samples, samples), ["y"], watches, batch_size=2)
        assert (found["y"].count, program.samples) == (6, 0)


def test_overflow_names_the_tensor():
    samples = Samples({"x": np.full((3, 2), 3e38, np.float32)})
    with pytest.raises(NonFiniteError) as caught:
        activation_ranges(Doubling(), samples, ["y"], batch_size=2)
    assert caught.value.where == "y"


def test_tensors_are_measured_side_by_side(monkeypatch):
    both = threading.Barrier(2, timeout=900)

    def waiting(values, extremes):
        both.wait()
        return measure(values, extremes)

    monkeypatch.setattr("quant_core.calibration.observe.measure", waiting)
    rows = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    watch, threads = RangeWatch(["one", "other"]), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        watch.add({"one": rows[0], "other": rows[1]})
    finally:
        torch.set_num_threads(threads)
    assert [found.maximum for found in watch.ranges.values()] == [float(row.max()) for row in rows]
