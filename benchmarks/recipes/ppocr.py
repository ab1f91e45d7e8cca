"""PP-OCRv4: find text (DBNet), turn it (MobileNetV3) and read it (SVTR-LCNet, CTC), as PaddlePaddle exports them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from benchmarks.recipes.drawings import line, page, phrases
from benchmarks.recipes.packages import fetch_wheel
from benchmarks.recipes.photographs import planes

LINES, PAGES = 32, 16
HEIGHT, READ_WIDTH, TURN_WIDTH, SIDE = 48, 320, 192, 320


def prepare_det(cache: Path, out: Path) -> None:
    """Text detection, with pages of text.

    Args:
        cache: Folder that keeps downloads between runs.
        out: Folder that receives `model.onnx` and `samples.npz`.
    """
    _copy("ch_PP-OCRv4_det_infer", cache, out)
    np.savez(out / "samples.npz", x=page_planes(PAGES, cache))


def prepare_rec(cache: Path, out: Path) -> None:
    """Text recognition, with lines of text.

    Args:
        cache: Folder that keeps downloads between runs.
        out: Folder that receives `model.onnx`, `samples.npz` and `texts.txt`.
    """
    _copy("ch_PP-OCRv4_rec_infer", cache, out)
    texts = phrases(LINES, 26, cache)
    np.savez(out / "samples.npz", x=line_planes(texts, READ_WIDTH, cache))
    (out / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")


def prepare_cls(cache: Path, out: Path) -> None:
    """Upright or upside down, with lines of text, every second one turned.

    Args:
        cache: Folder that keeps downloads between runs.
        out: Folder that receives `model.onnx` and `samples.npz`.
    """
    _copy("ch_ppocr_mobile_v2.0_cls_infer", cache, out)
    lines = line_planes(phrases(LINES, 14, cache), TURN_WIDTH, cache)
    lines[1::2] = lines[1::2, :, ::-1, ::-1]
    np.savez(out / "samples.npz", x=lines, labels=np.arange(LINES) % 2)


def line_planes(texts: list[str], width: int, cache: Path) -> np.ndarray:
    """Draw lines of one width.

    Args:
        texts: What they say.
        width: Pixels; shorter lines are padded with zeros as the package does, longer ones are pressed.
        cache: Folder that keeps downloads between runs.

    Returns:
        `2 x / 255 - 1`, float32, N x 3 x 48 x width.
    """
    batch = np.zeros((len(texts), 3, HEIGHT, width), np.float32)
    for row, text in enumerate(texts):
        drawn = line(text, HEIGHT, cache)
        drawn = drawn.resize((min(drawn.width, width), HEIGHT))
        batch[row, :, :, : drawn.width] = planes(np.asarray(drawn)[None], 0.5, 0.5)[0]
    return batch


def page_planes(count: int, cache: Path) -> np.ndarray:
    """Draw pages of three to six lines.

    Args:
        count: How many.
        cache: Folder that keeps downloads between runs.

    Returns:
        `2 x / 255 - 1`, float32, N x 3 x 320 x 320.
    """
    texts = phrases(count * 6, 30, cache)
    pages = [page(texts[6 * index :][: 3 + index % 4], SIDE, cache) for index in range(count)]
    return planes(np.stack([np.asarray(drawn) for drawn in pages]), 0.5, 0.5)


def characters(session_metadata: dict[str, str]) -> list[str]:
    """Give the classes of a recogniser.

    Args:
        session_metadata: The model's metadata, which holds them under `character`.

    Returns:
        The text of each class: nothing for the blank, then the characters, then a space.
    """
    return ["", *session_metadata["character"].splitlines(), " "]


def read(probabilities: np.ndarray, classes: list[str]) -> str:
    """Decode one line: drop repetitions, then blanks (greedy CTC).

    Args:
        probabilities: Steps x classes.
        classes: Text of each class.

    Returns:
        The text.
    """
    best = probabilities.argmax(1)
    kept = best[np.concatenate([[True], best[1:] != best[:-1]])]
    return "".join(classes[index] for index in kept)


def edits(text: str, other: str) -> int:
    """Count the characters to insert, delete or replace that turn one text into another (Levenshtein).

    Args:
        text: The one.
        other: The other.

    Returns:
        The least number.
    """
    row = list(range(len(other) + 1))
    for count, mine in enumerate(text, 1):
        before, row[0] = row[0], count
        for at, theirs in enumerate(other, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (mine != theirs))
    return row[-1]


def _copy(name: str, cache: Path, out: Path) -> None:
    folder = fetch_wheel("rapidocr-onnxruntime==1.4.4", cache) / "rapidocr_onnxruntime" / "models"
    shutil.copyfile(folder / f"{name}.onnx", out / "model.onnx")
