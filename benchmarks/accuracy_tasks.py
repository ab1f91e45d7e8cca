"""What `benchmarks.accuracy_size` quantizes, with samples to calibrate on, others to judge on, and a judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from benchmarks.peers.made import Contestant
from benchmarks.recipes.drawings import phrases
from benchmarks.recipes.ppocr import READ_WIDTH, characters, edits, line_planes, read
from benchmarks.zoo import prepare, zoo_folder
from quant_core.verification.differences import Difference

Array = npt.NDArray[Any]

_PHOTOS = 15
_SENTENCES = 128
_LINES = 100


@dataclass(frozen=True, eq=False)
class Found:
    """How a file does on samples that no tool saw.

    Attributes:
        metric: The task's own number, larger is better.
        sqnr_db: Of the first output against the float file's.
        more: What the task's further judges say, by name.
    """

    metric: float
    sqnr_db: float
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Task:
    """One model.

    Attributes:
        title: What it is.
        metric: What the judge's number is.
        model: The float file.
        samples: Calibration samples, the same for every tool.
        inputs: Samples to judge on.
        judge: `(outputs, outputs of the float file)` -> the task's number.
        form: How the number is written.
        more: Further judges, by the name of their number.
        transformer: Whether NNCF is told so.
        extra: Requests of our own beside those at the others' bytes: name -> fields of the request.
        others: Further contestants.
    """

    title: str
    metric: str
    model: Path
    samples: Path
    inputs: Mapping[str, Array]
    judge: Callable[[Array, Array], float]
    form: str
    more: Mapping[str, Callable[[Array, Array], float]] = field(default_factory=dict)
    transformer: bool = False
    extra: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    others: tuple[Contestant, ...] = ()

    def outputs(self, path: Path, threads: int, batch: int = 50) -> Array:
        """Run a file on the samples to judge on.

        Args:
            path: The file.
            threads: Threads of onnxruntime.
            batch: Samples a run.

        Returns:
            Its first output.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        count = len(next(iter(self.inputs.values())))
        return np.concatenate(
            [
                session.run(None, {name: a[at : at + batch] for name, a in self.inputs.items()})[0]
                for at in range(0, count, batch)
            ]
        )

    def find(self, path: Path, reference: Array, threads: int) -> Found:
        """Judge a file.

        Args:
            path: The file.
            reference: Outputs of the float file.
            threads: Threads of onnxruntime.

        Returns:
            What was found.
        """
        outputs = self.outputs(path, threads)
        difference = Difference(path.name)
        difference.add(reference, outputs)
        more = {name: judge(outputs, reference) for name, judge in self.more.items()}
        return Found(self.judge(outputs, reference), difference.sqnr_db, more)


def resnet20(kept: Path) -> Task:
    """CIFAR-10: 512 training images in, 10,000 test images to judge on.

    Args:
        kept: Folder for files.

    Returns:
        The task.
    """
    del kept
    with np.load(prepare("cifar10-test") / "samples.npz") as held:
        images, labels = held["input"], held["labels"]
    folder = prepare("resnet20")
    return Task(
        "ResNet-20, CIFAR-10",
        "top-1 on 10,000 test images, %",
        folder / "model.onnx",
        folder / "samples.npz",
        {"input": images},
        lambda outputs, _: 100 * float((outputs.argmax(1) == labels).mean()),
        "{:.2f}",
        extra={f"{bits} bits": {"effective_bits": bits} for bits in (2, 2.5, 3, 4, 5, 6, 8)}
        | {"150,000 bytes": {"size": 150_000}},
        others=(
            Contestant(
                "AIMET, 4-bit weights, 500 steps of AdaRound", "aimet", {"weights": "int4", "adaround": 500}
            ),
        ),
    )


def efficientnet(kept: Path) -> Task:
    """ImageNet: 15 photographs in, 5 others and their mirror images to judge on.

    Args:
        kept: Folder for files.

    Returns:
        The task.
    """
    folder = prepare("efficientnet-lite0")
    with np.load(folder / "samples.npz") as held:
        photos = held["input"]
    samples = _keep(kept, {"input": photos[:_PHOTOS]})
    others = photos[_PHOTOS:]
    return Task(
        "EfficientNet-Lite0, ImageNet",
        "same class as float on 10 photographs, %",
        folder / "model.onnx",
        samples,
        {"input": np.ascontiguousarray(np.concatenate([others, others[..., ::-1]]))},
        lambda outputs, float_: 100 * float((outputs.argmax(1) == float_.argmax(1)).mean()),
        "{:.0f}",
    )


def minilm(kept: Path) -> Task:
    """Sentence encoder: 128 sentences in, 128 others to judge on.

    Args:
        kept: Folder for files.

    Returns:
        The task.
    """
    folder = prepare("minilm")
    with np.load(folder / "samples.npz") as held:
        arrays = {name: held[name] for name in held.files}
    samples = _keep(kept, {name: a[:_SENTENCES] for name, a in arrays.items()})

    def cosine(outputs: Array, float_: Array) -> float:
        norms = np.linalg.norm(outputs, axis=1) * np.linalg.norm(float_, axis=1)
        return float(((outputs * float_).sum(1) / norms).mean())

    return Task(
        "MiniLM-L6 sentence encoder",
        "mean cosine to float on 128 sentences",
        folder / "model.onnx",
        samples,
        {name: a[_SENTENCES:] for name, a in arrays.items()},
        cosine,
        "{:.4f}",
        transformer=True,
        extra={"4.5 bits": {"effective_bits": 4.5}},
    )


def ppocr(kept: Path) -> Task:
    """Text recognition: 32 rendered lines in, 100 others to judge on.

    Args:
        kept: Folder for files.

    Returns:
        The task.
    """
    folder = prepare("ppocr-rec")
    model = folder / "model.onnx"
    seen = set((folder / "texts.txt").read_text(encoding="utf-8").splitlines())
    texts = [text for text in phrases(3 * _LINES, 26, zoo_folder(), seed=1) if text not in seen][:_LINES]
    lines = line_planes(texts, READ_WIDTH, zoo_folder())
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    classes = characters(session.get_modelmeta().custom_metadata_map)

    def texts_of(outputs: Array, float_: Array) -> list[tuple[str, str]]:
        return [(read(a, classes), read(b, classes)) for a, b in zip(outputs, float_, strict=True)]

    def same_text(outputs: Array, float_: Array) -> float:
        return 100 * float(np.mean([one == other for one, other in texts_of(outputs, float_)]))

    def same_words(outputs: Array, float_: Array) -> float:
        pairs = texts_of(outputs, float_)
        return 100 * float(np.mean([one.strip() == other.strip() for one, other in pairs]))

    def character_errors(outputs: Array, float_: Array) -> float:
        pairs = [(one.strip(), other.strip()) for one, other in texts_of(outputs, float_)]
        return 100 * sum(edits(*pair) for pair in pairs) / sum(len(other) for _, other in pairs)

    del kept
    return Task(
        "PP-OCRv4 text recognition",
        f"lines read as float reads them, of {len(texts)}, %",
        model,
        folder / "samples.npz",
        {"x": lines},
        same_text,
        "{:.0f}",
        more={
            "the same but for spaces at the ends, %": same_words,
            "characters read otherwise, these spaces aside, %": character_errors,
        },
    )


TASKS: dict[str, Callable[[Path], Task]] = {
    "resnet20": resnet20,
    "efficientnet-lite0": efficientnet,
    "minilm": minilm,
    "ppocr-rec": ppocr,
}


def _keep(kept: Path, arrays: Mapping[str, Array]) -> Path:
    path = kept / "calibration.npz"
    if not path.exists():
        kept.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
    return path
