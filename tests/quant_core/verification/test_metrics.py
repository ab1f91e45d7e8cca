from __future__ import annotations

import numpy as np
import pytest

from quant_core.errors import SamplesError
from quant_core.verification import MetricAccumulator, find_correct, sqnr_db
from quant_core.verification.differences import LARGEST_DB


def accumulate(reference, values, *, batch, classes, labels=None):
    metrics = MetricAccumulator(classes=classes)
    for start in range(0, len(reference), batch):
        part = slice(start, start + batch)
        metrics.add({"y": reference[part]}, {"y": values[part]}, None if labels is None else labels[part])
    return metrics.result()


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_batches_add_up_to_the_whole(batch):
    random = np.random.default_rng(1)
    reference = random.standard_normal((64, 10)).astype(np.float32)
    values = (reference + 0.5 * random.standard_normal((64, 10))).astype(np.float32)
    labels = random.integers(0, 10, 64)
    metrics = accumulate(reference, values, batch=batch, classes=True, labels=labels)
    cosine = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(reference, values, strict=True)]
    error = np.sum((reference.astype(float) - values) ** 2)
    assert metrics.name == "top1"
    assert metrics.float_ == np.mean(reference.argmax(1) == labels)
    assert metrics.quantized == np.mean(values.argmax(1) == labels)
    assert metrics.top1_agreement == np.mean(reference.argmax(1) == values.argmax(1))
    assert metrics.mean_cosine == pytest.approx(np.mean(cosine))
    assert metrics.sqnr_db == pytest.approx(10 * np.log10(np.sum(reference.astype(float) ** 2) / error))
    assert metrics.samples == 64
    assert metrics.labelled


def test_without_labels_classes_are_judged_by_agreement_and_embeddings_by_cosine():
    reference = np.array([[1.0, 2.0], [3.0, 1.0]])
    values = np.array([[2.0, 1.0], [3.0, 1.0]])
    agreement = accumulate(reference, values, batch=1, classes=True)
    assert (agreement.name, agreement.float_, agreement.quantized) == ("top1_agreement", 1.0, 0.5)
    assert not agreement.labelled
    cosine = accumulate(reference, values, batch=1, classes=False)
    assert (cosine.name, cosine.float_) == ("mean_cosine", 1.0)
    assert cosine.quantized == pytest.approx((0.8 + 1.0) / 2)
    assert cosine.top1_agreement is None


def test_pixels_and_tokens_are_judged_one_by_one():
    random = np.random.default_rng(2)
    pixels = random.standard_normal((2, 5, 3, 4))
    assert find_correct(pixels, pixels.argmax(1), "y").sum() == 24
    tokens = random.standard_normal((2, 6, 5))
    changed = tokens.copy()
    changed[0, 0] = -changed[0, 0]
    metrics = accumulate(tokens, changed, batch=2, classes=True)
    assert metrics.quantized == pytest.approx(11 / 12)


def test_equal_outputs_stay_finite():
    same = accumulate(np.zeros((3, 4)), np.zeros((3, 4)), batch=3, classes=False)
    assert same.sqnr_db == LARGEST_DB
    assert same.mean_cosine == 1.0
    assert sqnr_db(0.0, 1.0) == -LARGEST_DB


def test_every_output_has_its_own_ratio_and_integer_outputs_count():
    metrics = MetricAccumulator(classes=False)
    metrics.add(
        {"a": np.ones((2, 3)), "b": np.array([4, 4]), "text": np.array(["x", "y"], object)},
        {"a": np.ones((2, 3)) * 0.9, "b": np.array([4, 3]), "text": np.array(["x", "y"], object)},
    )
    ratios = metrics.result().sqnr_db_by_output
    assert ratios == {"a": pytest.approx(20.0), "b": pytest.approx(10 * np.log10(32))}


@pytest.mark.parametrize(
    "labels",
    [np.zeros((4, 1), int), np.zeros(4), np.full(4, 3), np.full(4, -1)],
    ids=["shape", "float", "high", "low"],
)
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(SamplesError, match="labels: "):
        accumulate(np.zeros((4, 3)), np.zeros((4, 3)), batch=4, classes=True, labels=labels)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(SamplesError):
        MetricAccumulator(classes=True).result()


def test_the_headline_is_of_the_output_that_was_named():
    random = np.random.default_rng(0)
    logits, boxes = random.standard_normal((20, 5)), random.standard_normal((20, 4))
    noisy = logits + 0.5 * random.standard_normal((20, 5))
    metrics = MetricAccumulator(classes=True, headline="logits")
    metrics.add({"boxes": boxes, "logits": logits}, {"boxes": boxes, "logits": noisy}, logits.argmax(1))
    found = metrics.result()
    assert (found.name, found.float_) == ("top1", 1.0)
    assert found.quantized == np.mean(noisy.argmax(1) == logits.argmax(1))
    assert found.sqnr_db == found.sqnr_db_by_output["logits"] < found.sqnr_db_by_output["boxes"]


def test_selections_of_other_sizes_are_left_out():
    metrics = MetricAccumulator(classes=False, headline="y")
    y, few, many = np.ones((4, 3), np.float32), np.zeros((2, 3), np.int64), np.zeros((5, 3), np.int64)
    metrics.add({"picked": few, "y": y}, {"picked": many, "y": y})
    metrics.add({"picked": few, "y": y}, {"picked": few, "y": y})
    metrics.add({"picked": few[:0], "y": y}, {"picked": few[:0], "y": y})
    assert set(metrics.result().sqnr_db_by_output) == {"y"}
    alone = MetricAccumulator(classes=False)
    alone.add({"picked": few}, {"picked": many})
    with pytest.raises(SamplesError, match="fixed size"):
        alone.result()
