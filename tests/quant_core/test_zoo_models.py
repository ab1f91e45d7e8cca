"""Every model of the zoo: outputs as onnxruntime's, finite first and second derivatives in every weight, layers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import zoo, zoo_check

# Name -> quantizable layers.
LAYERS = {
    "resnet20": 22,
    "efficientnet-lite0": 50,
    "minilm": 39,
    "ppocr-det": 64,
    "ppocr-rec": 47,
    "ppocr-cls": 54,
    "silero-vad": 13,
    "silero-vad-op15": 8,
    "silero-vad-half": 8,
    "silero-vad-ifless": 13,
    "silero-vad-openvino": 8,
    "silero-vad-sequence": 8,
    "nudenet": 64,
    "ddddocr-det": 83,
    "ddddocr-ocr": 24,
    "ddddocr-int8": 0,
    "slanet-1m": 83,
    "smollm2": 211,
    "smart-turn": 1,
    "silero-vad-v6": 8,
    "ppocrv6-det": 85,
    "ppocrv6-rec": 66,
    "orientation": 33,
    "magika": 3,
    "basic-pitch": 9,
    "swift-f0": 28,
    "centerface": 63,
    "segmenter": 101,
    "dnsmos": 12,
    "plcmos": 20,
    "aecmos": 11,
    "rivagan-encoder": 4,
    "rivagan-decoder": 4,
}
# Operands that set shapes or are only compared: outputs do not vary smoothly with them.
FIXED = {
    ("Resize", 1),
    ("Resize", 2),
    ("GreaterOrEqual", 0),
    ("GreaterOrEqual", 1),
    ("LessOrEqual", 0),
    ("LessOrEqual", 1),
}
# Biases in an older quantized form: divided by a scale, floored and made integers.
FLOORED = {"ddddocr-int8": {("Div", 0)}}


def fetched(name):
    try:
        return zoo.prepare(name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{name} is not in the cache and cannot be fetched: {error}")


def readers(graph, name):
    for node in graph.node:
        yield from ((node.op_type, index) for index, read in enumerate(node.input) if read == name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from readers(attribute.g, name)


def test_every_model_is_checked():
    assert set(LAYERS) == set(zoo.RECIPES) - {"cifar10-test"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_derivatives_and_layers(name):
    folder = fetched(name)
    row = zoo_check.check(name, folder)
    assert row.passes, row
    assert row.layers == LAYERS[name]
    assert (row.quantized > 0) == (name in zoo.QUANTIZED)
    assert row.weights > 0
    graph = onnx.load(folder / "model.onnx").graph
    for weight in row.constant:
        # A copy of a name in another branch carries a number: `val_7_2`.
        assert set(readers(graph, weight)) <= FIXED | FLOORED.get(name, set()), weight
