"""Predictions of `output` at 2 bits beside fresh samples: `python -m benchmarks.sensitivity_study.fresh`.

Three sets of samples share nothing: GPTQ rounds with one, every layer alone at 2 bits is scored on another and measured
on the third. A prediction and a measurement both have a standard error; a layer counts as predicted where the two are
within 25 %, or within two of their common standard errors. Where the loss of single samples has the coefficient of
variation c, `128 c^2` samples in each set put two common standard errors at 25 %: no method can promise it with fewer.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.recipes.drawings import phrases
from benchmarks.recipes.ppocr import READ_WIDTH, line_planes
from benchmarks.sensitivity_study.setting import Setting, Subject, prepare_setting, split
from benchmarks.zoo import prepare as fetch
from benchmarks.zoo import zoo_folder
from quant_core.calibration import Samples
from quant_core.sensitivity import LossIncrease, output

_WITHIN = 0.25
_SIDE = 224
_LINES, _ENLARGED = 160, 256


def enlarged(cache: Path) -> Mapping[str, np.ndarray]:
    """Enlarge CIFAR-10's first test images to what EfficientNet-Lite0 takes: many photographs, if coarse ones.

    Args:
        cache: The zoo's folder.

    Returns:
        `input`, float32, 256 x 3 x 224 x 224, about -1 to 1.
    """
    with np.load(fetch("cifar10-test", cache) / "samples.npz") as file:
        images = torch.from_numpy(file["input"][:_ENLARGED])
    # From the ResNet's scale, whose black is about -2 and whose white is about 2, to that of Lite0.
    low, high = images.amin(dim=(0, 2, 3), keepdim=True), images.amax(dim=(0, 2, 3), keepdim=True)
    scaled = 2 * (images - low) / (high - low) - 1
    return {"input": torch.nn.functional.interpolate(scaled, size=(_SIDE, _SIDE), mode="bilinear").numpy()}


def lines(cache: Path) -> Mapping[str, np.ndarray]:
    """Draw more lines of text than the zoo holds.

    Args:
        cache: The zoo's folder.

    Returns:
        `x`, float32, 160 x 3 x 48 x 320.
    """
    return {"x": line_planes(phrases(_LINES, 26, cache), READ_WIDTH, cache)}


SUBJECTS = {
    "resnet20": Subject("resnet20", "cifar10-test", 128, 1024, 2048),
    "efficientnet-lite0, photographs": Subject("efficientnet-lite0", "efficientnet-lite0", 8, 6, 6),
    "efficientnet-lite0, CIFAR-10 enlarged": Subject("efficientnet-lite0", enlarged, 32, 64, 128),
    "minilm": Subject("minilm", "minilm", 48, 64, 120, longest=32),
    "ppocr-rec": Subject("ppocr-rec", lines, 32, 64, 64),
}


@dataclass(frozen=True)
class Agreement:
    """Predictions beside measurements, one number a layer.

    Attributes:
        predicted: Mean loss increase on the samples that a method may see.
        predicted_stderr: Its standard error.
        measured: Mean loss increase on fresh ones.
        measured_stderr: Its standard error.
        samples: How many were rounded with, scored on and measured on.
        seconds: Processor seconds of the prediction.
    """

    predicted: list[float]
    predicted_stderr: list[float]
    measured: list[float]
    measured_stderr: list[float]
    samples: tuple[int, int, int]
    seconds: float

    @property
    def ratio(self) -> np.ndarray:
        """Predicted over measured."""
        return np.array(self.predicted) / np.array(self.measured)

    @property
    def errors_off(self) -> np.ndarray:
        """Difference in common standard errors."""
        common = np.hypot(self.predicted_stderr, self.measured_stderr)
        return np.abs(np.subtract(self.predicted, self.measured)) / common

    @property
    def close(self) -> float:
        """Share of the layers within 25 %."""
        return float(np.mean(np.abs(self.ratio - 1) < _WITHIN))

    @property
    def explained(self) -> float:
        """Share of the layers within 25 % or two standard errors."""
        return float(np.mean((np.abs(self.ratio - 1) < _WITHIN) | (self.errors_off < 2)))

    @property
    def variation(self) -> float:
        """Coefficient of variation of the loss of single samples, median layer, from the measurement."""
        relative = np.array(self.measured_stderr) / np.array(self.measured)
        return float(np.median(relative)) * self.samples[2] ** 0.5

    def row(self, name: str) -> str:
        """Write one row of the table.

        Args:
            name: What it is of.

        Returns:
            Markdown.
        """
        needed = 128 * self.variation**2
        predicted, measured = (
            np.median(np.array(error) / np.array(mean))
            for mean, error in (
                (self.predicted, self.predicted_stderr),
                (self.measured, self.measured_stderr),
            )
        )
        return (
            f"| {name} | {' / '.join(map(str, self.samples))} | {np.median(self.ratio):.2f} | {self.close:.0%} | "
            f"{self.explained:.0%} | {predicted:.0%}, {measured:.0%} | {np.sqrt(np.mean(self.errors_off**2)):.2f} | "
            f"{self.variation:.1f} | {needed:.0f} | {self.seconds:.0f} |"
        )


def agreement(subject: Subject, folder: Path) -> Agreement:
    """Score and measure every layer alone at 2 bits, or find that done.

    Args:
        subject: The model and its samples.
        folder: Keeps the codes and the result.

    Returns:
        Predictions and measurements.
    """
    path = folder / "agreement.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        setting = prepare_setting(subject, folder, (2,))
        start = time.process_time()
        scored = _increase(setting, setting.scoring)
        seconds = time.process_time() - start
        fresh = _increase(setting, setting.measuring)
        found = Agreement(
            predicted=scored.increase[:, 0].tolist(),
            predicted_stderr=scored.stderr[:, 0].tolist(),
            measured=fresh.increase[:, 0].tolist(),
            measured_stderr=fresh.stderr[:, 0].tolist(),
            samples=(subject.rounding, scored.samples, fresh.samples),
            seconds=seconds,
        )
        path.write_text(json.dumps(asdict(found)))
    held = json.loads(path.read_text())
    return Agreement(**held | {"samples": tuple(held["samples"])})


def _increase(setting: Setting, samples: Samples) -> LossIncrease:
    job = setting.job
    weights = [[setting.rounded[layer.name][2]] for layer in job.layers]
    return output(job.program, job.layers, setting.objective, split(job, samples), weights)


def print_table(found: Sequence[tuple[str, Agreement]]) -> None:
    """Print one row a model, as Markdown.

    Args:
        found: Name and agreement of each.
    """
    print(
        "| model | rounding / scoring / fresh samples | predicted / measured, median | within 25 % "
        "| or within 2 errors | standard errors | off, in errors | variation a sample | samples for 25 % | s |"
    )
    print("|" + " --- |" * 10)
    for name, one in found:
        print(one.row(name), flush=True)


def main() -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(
        description="Hold the predictions of `output` at 2 bits against fresh samples."
    )
    parser.add_argument("--subjects", default=";".join(SUBJECTS), help="names, with semicolons between them")
    asked = parser.parse_args().subjects.split(";")
    if unknown := sorted(set(asked) - set(SUBJECTS)):
        parser.error(f"unknown: {'; '.join(unknown)}; there are {'; '.join(SUBJECTS)}")
    torch.set_num_threads(1)
    kept = zoo_folder() / "sensitivity-fresh"
    print_table([(name, agreement(SUBJECTS[name], kept / SUBJECTS[name].key)) for name in asked])


if __name__ == "__main__":
    main()
