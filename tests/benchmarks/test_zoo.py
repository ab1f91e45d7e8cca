"""The zoo prepares what it says; the parts that need no network are tested alone."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from quant_core.calibration import load_samples
from quant_core.ingest import find_layers, normalise, read_model

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import zoo  # noqa: E402 - the benchmarks are not an installed package
from benchmarks.recipes.sentences import _sentences  # noqa: E402
from benchmarks.recipes.wordpiece import encode, split_pieces, split_words  # noqa: E402

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "the", "cafe", "!", "$", "5"]
NUMBER = {piece: index for index, piece in enumerate(VOCABULARY)}


def test_words_lose_case_and_accents_and_stand_apart_from_punctuation():
    assert split_words("The CAFÉ, $5 won't!") == ["the", "cafe", ",", "$", "5", "won", "'", "t", "!"]
    assert unicodedata.normalize("NFC", "É") == "É"


def test_pieces_are_the_longest_known():
    # The example of the BERT paper's code.
    assert split_pieces("unaffable", NUMBER) == ["un", "##aff", "##able"]
    assert split_pieces("unknown", NUMBER) == ["[UNK]"]


def test_encoding_pads_and_cuts():
    tokens = encode(["the unaffable cafe!", "the the the the the the"], VOCABULARY, 5)
    np.testing.assert_array_equal(tokens["input_ids"], [[2, 7, 4, 5, 3], [2, 7, 7, 7, 3]])
    tokens = encode(["the!"], VOCABULARY, 6)
    np.testing.assert_array_equal(tokens["input_ids"], [[2, 7, 9, 3, 0, 0]])
    np.testing.assert_array_equal(tokens["attention_mask"], [[1, 1, 1, 1, 0, 0]])


def test_only_prose_counts_as_sentences():
    text = "Return the shortest path\n  between two nodes. Let x_1 = f(y) hold for all. Too short. Unfinished prose"
    assert _sentences(text) == ["Return the shortest path between two nodes."]


def test_resnet20_needs_no_network(tmp_path):
    folder = zoo.prepare("resnet20", tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "samples.npz"]
    assert zoo.prepare("resnet20", tmp_path) == folder


def test_stopped_preparation_is_done_again(tmp_path, monkeypatch):
    monkeypatch.setitem(zoo.RECIPES, "resnet20", "cifar10:missing")
    with pytest.raises(AttributeError):
        zoo.prepare("resnet20", tmp_path)
    assert not (tmp_path / "resnet20").exists()
    monkeypatch.undo()
    assert (zoo.prepare("resnet20", tmp_path) / "model.onnx").exists()


def test_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("BITWRIGHT_ZOO", str(tmp_path))
    assert zoo.zoo_folder() == tmp_path


def test_unknown_name_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["zoo", "alexnet"])
    with pytest.raises(SystemExit) as caught:
        zoo.main()
    assert caught.value.code == 2
    assert "efficientnet-lite0" in capsys.readouterr().err


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(name: str, **inputs: np.ndarray) -> np.ndarray:
    return _session(zoo.prepare(name) / "model.onnx").run(None, inputs)[0]


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_fetches_models_knows_the_authorities_of_the_machine(slow):
    assert os.environ.get("SSL_CERT_FILE", "").endswith("tests/data/authority.pem") != slow


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layers"), [("resnet20", 22), ("efficientnet-lite0", 50), ("minilm", 39)])
def test_normalising_keeps_outputs_and_finds_all_layers(name, layers, tmp_path):
    folder = zoo.prepare(name)
    model = normalise(read_model(folder / "model.onnx").model)
    assert len(find_layers(model)) == layers
    assert "BatchNormalization" not in {node.op_type for node in model.graph}
    ir.save(model, tmp_path / "normal.onnx")
    samples = load_samples(folder / "samples.npz", model).take(np.arange(8))
    before, after = (
        _session(path).run(None, samples.inputs) for path in (folder / "model.onnx", tmp_path / "normal.onnx")
    )
    for expected, found in zip(before, after, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_efficientnet_names_18_of_20_photographs():
    with np.load(zoo.prepare("efficientnet-lite0") / "samples.npz") as samples:
        logits = _run("efficientnet-lite0", input=samples["input"])
        assert (logits.argmax(1) == samples["labels"]).sum() == 18


@pytest.mark.slow
def test_resnet20_on_the_whole_test_set():
    with np.load(zoo.prepare("cifar10-test") / "samples.npz") as samples:
        logits = _run("resnet20", input=samples["input"])
        assert (logits.argmax(1) == samples["labels"]).mean() == pytest.approx(0.9208)


@pytest.mark.slow
def test_minilm_gives_the_published_similarities():
    folder = zoo.prepare("minilm")
    vocabulary = next(zoo.zoo_folder().rglob("vocab.txt")).read_text(encoding="utf-8").splitlines()
    sentences = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]
    vectors = _run("minilm", **encode(sentences, vocabulary, 32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    # The documentation of sentence-transformers gives 0.7553 for this pair.
    assert vectors[0] @ vectors[1] == pytest.approx(0.7553, abs=1e-3)
    assert abs(vectors[0] @ vectors[2]) < 0.2
    with np.load(folder / "samples.npz") as samples:
        assert samples["input_ids"].shape == (256, 128)
