"""What does each rounding make of ResNet-20? `python -m benchmarks.rounding [bytes or bits a weight | rounding ...]`.

Numbers up to 32 are bits a weight on average; without names all roundings are measured. Whole files on CIFAR-10: the
512 calibration images in; out, by onnxruntime, top-1 on the 10,000 test images and the divergence from the float file
(`python -m benchmarks.zoo` fetches the images). Sensitivities are estimated once for each rounding that scores.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from scipy.special import log_softmax

from benchmarks.zoo import zoo_folder
from quant_core.pipeline import quantize
from quant_core.spec import Budget, QuantizeSpec, Rounding

DATA = Path(__file__).parent / "data"
MODEL = DATA / "resnet20_cifar10.onnx"
SIZES = (207_366, 150_000, 133_258, 111_328)
_MOST_BITS = 32
_BATCH = 250


def main() -> None:
    """Print one row a file."""
    known = get_args(Rounding)
    roundings = [name for name in known if name in sys.argv[1:]] or known
    sizes = [float(text) for text in sys.argv[1:] if text not in known] or SIZES
    with np.load(zoo_folder() / "cifar10-test" / "samples.npz") as data:
        images, labels = data["input"], data["labels"]
    reference = _logits(MODEL, images)
    print(f"float {100 * (reference.argmax(1) == labels).mean():.2f}")
    print("rounding         bytes   top-1  divergence  CPU seconds")
    with tempfile.TemporaryDirectory() as folder:
        first: dict[Rounding, Path] = {}
        for size in sizes:
            for rounding in roundings:
                budget = Budget(effective_bits=size) if size <= _MOST_BITS else Budget(size=size)
                spec = QuantizeSpec(budget=budget, rounding=rounding, workers=1)
                out = Path(folder) / f"{rounding}-{size}"
                start = time.process_time()
                quantize(
                    MODEL,
                    DATA / "cifar10_calibration.npz",
                    spec,
                    out,
                    earlier=first.get(spec.scored_rounding),
                )
                seconds = time.process_time() - start
                first.setdefault(spec.scored_rounding, out)
                path = out / "model.onnx"
                found = _logits(path, images)
                print(
                    f"{rounding:14} {path.stat().st_size:7}   {100 * (found.argmax(1) == labels).mean():5.2f}  "
                    f"{_divergence(reference, found):10.4f}  {seconds:11.0f}",
                    flush=True,
                )


def _logits(path: Path, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    runs = [session.run(None, {name: images[at : at + _BATCH]})[0] for at in range(0, len(images), _BATCH)]
    return np.concatenate(runs)


def _divergence(reference: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    target = log_softmax(reference, axis=1)
    return float((np.exp(target) * (target - log_softmax(found, axis=1))).sum(1).mean())


if __name__ == "__main__":
    main()
