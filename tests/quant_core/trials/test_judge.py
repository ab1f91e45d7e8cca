import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from scipy import stats

from quant_core.calibration import Samples
from quant_core.errors import SpecError
from quant_core.sensitivity import Objective, Term
from quant_core.spec.budget import AccuracyBand, parse_band
from quant_core.trials.judge import Judge

SQUARED = Objective((Term("y", "y", "squared_error"),))


def classifier(path, weight, softmax=False):
    out = "y"
    nodes = [helper.make_node("MatMul", ["x", "w"], ["logits" if softmax else out])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], [out]))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.fixture
def pair(tmp_path):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(200, 5)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    noisy = w + 0.3 * rng.normal(size=w.shape).astype(np.float32)
    labels = (x @ w + rng.normal(size=(200, 4))).argmax(1)
    return tmp_path, x, w, noisy, labels


def band(text):
    return AccuracyBand.model_validate(parse_band(text))


def judge(pair, text, labels=None, kind="kl", softmax=False):
    folder, x, w, noisy, _ = pair
    term = Term("y", "logits" if softmax else "y", kind)
    made = Judge(
        band(text),
        classifier(folder / "float.onnx", w, softmax),
        Samples({"x": x}, labels),
        Objective((term,)),
        64,
        seed=0,
    )
    return made, classifier(folder / "noisy.onnx", noisy, softmax)


def test_a_drop_of_accuracy(pair):
    _, x, w, noisy, labels = pair
    made, path = judge(pair, "50%", labels)
    found = made.judge(path)
    assert made.labelled
    right = [((x @ m).argmax(1) == labels) for m in (w, noisy)]
    assert found.value == pytest.approx(right[0].mean() - right[1].mean())
    assert found.low < found.value < found.high
    assert found.inside
    logits = x @ w
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = (p.max(1) - p[np.arange(200), (x @ noisy).argmax(1)]).mean()
    assert found.expected == pytest.approx(expected, rel=1e-4)
    strict, _ = judge(pair, f"{100 * (expected - 1e-3):f}%", labels)
    assert not strict.judge(path).inside
    same = made.judge(pair[0] / "float.onnx")
    assert same.value == 0
    assert same.low < 0 < same.high < 0.03


def test_answers_that_differ_without_labels(pair):
    _, x, w, noisy, _ = pair
    made, path = judge(pair, "0.1%")
    found = made.judge(path)
    differ = int(((x @ w).argmax(1) != (x @ noisy).argmax(1)).sum())
    interval = stats.binomtest(differ, 200).proportion_ci(0.95, "wilson")
    assert (found.low, found.value, found.high) == pytest.approx(
        (interval.low, differ / 200, interval.high), rel=1e-5
    )
    assert not found.inside


@pytest.mark.parametrize("softmax", [False, True])
def test_noise_cosine_and_loss(pair, softmax):
    _, x, w, noisy, _ = pair
    a, b = (x @ m for m in (w, noisy))
    log_p, log_q = (z - np.log(np.exp(z).sum(1, keepdims=True)) for z in (a, b))
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(1).mean()
    made, path = judge(pair, "loss<=0.5", softmax=softmax)
    assert made.judge(path).value == pytest.approx(divergence, rel=1e-4)
    if not softmax:
        made, path = judge(pair, "sqnr>=10dB")
        found = made.judge(path)
        assert found.value == pytest.approx(
            10 * np.log10(np.square(a).sum() / np.square(a - b).sum()), rel=1e-5
        )
        assert found.low < found.value < found.high
        made, path = judge(pair, "cosine>=0.99")
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        found = made.judge(path)
        assert found.value == pytest.approx(cosines.mean(), rel=1e-5)
        expected = stats.bootstrap(
            (cosines,), np.mean, method="percentile", random_state=0
        ).confidence_interval
        off = 0.04 * float(expected.high - expected.low)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=off)


@pytest.mark.parametrize("text", ["sqnr>=10dB", "1%"])
def test_the_fewest_samples_that_can_show_a_band_are_enough(pair, text):
    made, path = judge(pair, text)
    made.fewest = made.samples
    assert made.judge(path).bound is not None
    made.fewest = made.samples + 1
    assert made.judge(path).bound is None


def two_outputs(path, first, second):
    nodes = [helper.make_node("MatMul", ["x", f"w_{name}"], [name]) for name in "ab"]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "ab"],
        [onnx.numpy_helper.from_array(w, f"w_{n}") for n, w in zip("ab", (first, second), strict=True)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.mark.parametrize("text", ["sqnr>=20dB", "cosine>=0.99"])
def test_a_band_holds_for_every_output(pair, text):
    folder, x, w, noisy, _ = pair
    objective = Objective(tuple(Term(name, name, "squared_error") for name in "ab"))
    made = Judge(band(text), two_outputs(folder / "f.onnx", w, w), Samples({"x": x}), objective, 64, seed=0)
    one, path = judge(pair, text, kind="squared_error")
    worst = one.judge(path)
    assert not worst.inside
    assert made.judge(two_outputs(folder / "a.onnx", w, noisy)) == worst
    assert made.judge(two_outputs(folder / "b.onnx", noisy, w)) == worst
    assert made.judge(two_outputs(folder / "c.onnx", w, w)).inside
    # An output that is always zero has no signal to compare noise with.
    blank = two_outputs(folder / "z.onnx", w, 0 * w)
    made = Judge(band(text), blank, Samples({"x": x}), objective, 64, seed=0)
    assert made.judge(blank).inside


@pytest.mark.parametrize(("text", "value"), [("sqnr>=20dB", 300), ("cosine>=0.99", 1), ("loss<=0.1", 0)])
def test_an_output_that_is_zero_throughout_and_stays_so(pair, text, value):
    folder, x, w, noisy, _ = pair
    blank = classifier(folder / "zero.onnx", 0 * w)
    made = Judge(band(text), blank, Samples({"x": x}), SQUARED, 64, seed=0)
    found = made.judge(blank)
    assert (found.value, found.low, found.high, found.inside) == (value, value, value, True)
    worse = made.judge(classifier(folder / "noisy.onnx", noisy))
    assert not worse.inside
    assert np.isfinite([worse.value, worse.low, worse.high, worse.bound]).all()


def shifted(path, weight, row):
    """A product and a row that is added to it, such as minus infinity where a class is masked."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "row"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(w.astype(np.float32), n) for n, w in (("w", weight), ("row", row))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.mark.parametrize("text", ["sqnr>=20dB", "cosine>=0.99"])
def test_masked_places_say_nothing(pair, text):
    folder, x, w, noisy, _ = pair
    masked, none = np.array([0, -np.inf, 0, 0]), np.array([1, 0, 1, 1])
    found = []
    for row, kept in ((masked, 1), (0 * none, none)):
        files = (shifted(folder / f"{name}.onnx", v * kept, row) for name, v in (("f", w), ("q", noisy)))
        float_file, file = files
        found.append(Judge(band(text), float_file, Samples({"x": x}), SQUARED, 64, seed=0).judge(file))
    assert found[0].value == pytest.approx(found[1].value)
    assert found[0].bound == pytest.approx(found[1].bound)


@pytest.mark.parametrize("text", ["sqnr>=0dB", "cosine>=0", "loss<=1000"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_keeps_no_band_and_is_told_in_numbers(pair, text, wrong):
    folder, x, w, _, _ = pair
    float_file = classifier(folder / "f.onnx", np.abs(w))
    made = Judge(band(text), float_file, Samples({"x": np.abs(x)}), SQUARED, 64, seed=0)
    found = made.judge(shifted(folder / "q.onnx", np.abs(w), np.array([0, wrong, 0, 0])))
    assert not found.inside
    assert np.isfinite([found.value, found.low, found.high, found.bound]).all()


def test_no_answers_to_count(pair):
    with pytest.raises(SpecError, match="no classes"):
        judge(pair, "1%", kind="squared_error")


def test_answers_beyond_doubt_are_counted(pair):
    folder, x, w, _, _ = pair
    doubtless = Objective((Term("a", "a", "squared_error", beyond_doubt=True),))
    made = Judge(band("5%"), two_outputs(folder / "f.onnx", w, w), Samples({"x": x}), doubtless, 64, seed=0)
    assert made.judge(two_outputs(folder / "same.onnx", w, w)).value == 0
    assert made.judge(two_outputs(folder / "turned.onnx", -w, w)).value > 0.5


@pytest.mark.parametrize(
    ("text", "metric", "limit"),
    [
        ("0.5%", "drop", 0.005),
        (0.005, "drop", 0.005),
        ("drop<=1%", "drop", 0.01),
        ("SQNR >= 20 dB", "sqnr", 20),
        ("cosine>=0.99", "cosine", 0.99),
        ("loss<=0.05", "loss", 0.05),
    ],
)
def test_bands_as_people_write_them(text, metric, limit):
    found = band(text)
    assert (found.metric, found.limit) == (metric, pytest.approx(limit))


@pytest.mark.parametrize("text", ["150%", "cosine>=2", "sqnr<=20", "a little", "loss<=-1", "-1"])
def test_bands_that_make_no_sense(text):
    with pytest.raises(ValueError, match=r"band|drop|cosine|loss"):
        band(text)
