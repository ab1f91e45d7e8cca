"""One model of the study: rounded weights, the loss, and three sets of samples that share nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from benchmarks.zoo import prepare as fetch
from benchmarks.zoo import zoo_folder
from quant_core.calibration import Samples
from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.preparation import Prepared, prepare
from quant_core.quantizers.moments.calibration_moments import CalibrationMoments
from quant_core.quantizers.rounding.round_weights import RoundedWeights, round_weights
from quant_core.scoring.effort import plan_effort
from quant_core.sensitivity import (
    Batch,
    Objective,
    activation_bytes,
    choose_loss,
    find_sample_axes,
    split_batches,
)
from quant_core.sensitivity.question import Question
from quant_core.spec import Budget, QuantizeSpec, SensitivityMethod, WeightOptions

BITS = (2, 3, 4, 6, 8)
_LARGEST = 64


@dataclass(frozen=True)
class Subject:
    """A model, and how many samples each step takes.

    Attributes:
        model: Zoo entry with the model.
        data: Zoo entry with the samples, or what gives them from the cache's folder: input name -> array.
        rounding: Samples that GPTQ rounds with.
        scoring: Samples that the methods score with.
        measuring: Samples that losses are measured on.
        mirrored: Whether each image also counts mirrored, within the same set.
        longest: Most tokens of a text; longer ones are left out and the padding behind is cut off.
    """

    model: str
    data: str | Callable[[Path], Mapping[str, np.ndarray]]
    rounding: int
    scoring: int
    measuring: int
    mirrored: bool = False
    longest: int | None = None

    @property
    def key(self) -> str:
        """What its measurements are kept under."""
        return f"{self.model}-{self.rounding}-{self.scoring}-{self.measuring}"


SUBJECTS = {
    "resnet20": Subject("resnet20", "cifar10-test", 128, 256, 512),
    "efficientnet-lite0": Subject("efficientnet-lite0", "efficientnet-lite0", 20, 10, 10, mirrored=True),
    "minilm": Subject("minilm", "minilm", 48, 24, 24, longest=32),
    "ppocr-rec": Subject("ppocr-rec", "ppocr-rec", 12, 10, 10),
}


@dataclass(frozen=True, eq=False)
class Setting:
    """A model ready to be studied.

    Attributes:
        job: The model, compiled.
        objective: The loss, as the product would choose it.
        scoring: Samples that the methods may see.
        measuring: Samples that they may not.
        rounded: Layer name -> bits -> codes and scales.
    """

    job: Prepared
    objective: Objective
    scoring: Samples
    measuring: Samples
    rounded: RoundedWeights

    @cached_property
    def weights(self) -> list[list[QuantizedWeight]]:
        """Rounded weights, layers x bit-widths."""
        return [[self.rounded[layer.name][bits] for bits in BITS] for layer in self.job.layers]

    @cached_property
    def stand_ins(self) -> list[list[dict[str, torch.Tensor]]]:
        """What rounding puts in place of float initializers, layers x bit-widths."""
        return [
            [
                {name: torch.from_numpy(values) for name, values in weight.stand_ins(layer.weight).items()}
                for weight in row
            ]
            for layer, row in zip(self.job.layers, self.weights, strict=True)
        ]

    @cached_property
    def batches(self) -> tuple[Batch, ...]:
        """The samples to measure on."""
        return split(self.job, self.measuring)

    @cached_property
    def reference(self) -> list[tuple[torch.Tensor, ...]]:
        """The float outputs on every batch of them."""
        with torch.no_grad():
            return [self._rows(batch, {}) for batch in self.batches]

    def question(self, method: SensitivityMethod, seconds: float) -> Question:
        """Ask a method for the sensitivity of every layer at every width.

        Args:
            method: The method, which the limits on samples and probes depend on.
            seconds: About how long it may take.

        Returns:
            The question, with the limits that the product has by default.
        """
        effort = plan_effort(self.job, self.scoring.count, method)
        return Question(
            program=self.job.program,
            layers=self.job.layers,
            feeds=_tensors(self.scoring.take(np.arange(effort.samples))),
            quantized=lambda layer, bits: self.rounded[layer.name][bits],
            objective=self.objective,
            bits=BITS,
            fixed_batch=self.scoring.batch,
            max_probes=effort.probes,
            seconds=seconds,
        )

    def plan_loss(self, choice: Sequence[int]) -> float:
        """Measure the loss increase of a whole plan.

        Args:
            choice: Position of each layer's width in `BITS`.

        Returns:
            Mean over the measuring samples.
        """
        weights: dict[str, torch.Tensor] = {}
        for row, k in zip(self.stand_ins, choice, strict=True):
            weights |= row[k]
        total, count = 0.0, 0
        with torch.no_grad():
            for batch, reference in zip(self.batches, self.reference, strict=True):
                loss = self.objective.per_sample(self._rows(batch, weights), reference, None)
                total += float(loss.double().sum())
                count += batch.size
        return total / count

    def _rows(self, batch: Batch, weights: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        names = self.objective.tensors
        values = self.job.program.evaluate(batch.feeds, outputs=names, weights=weights)
        return self.objective.rows(values, batch.size)


def split(job: Prepared, samples: Samples) -> tuple[Batch, ...]:
    """Cut samples into batches to measure on.

    Args:
        job: The model.
        samples: The samples.

    Returns:
        Batches of at most 64.
    """
    inputs = _tensors(samples)
    return split_batches(
        inputs,
        None,
        sample_bytes=activation_bytes(job.program, inputs, samples.batch),
        seed=0,
        fixed=samples.batch,
        largest=_LARGEST,
        clusters=1,
    )


def prepare_setting(subject: Subject, folder: Path, bits: tuple[int, ...] = BITS) -> Setting:
    """Load a model and round every layer at every width, or find that done.

    Args:
        subject: The model.
        folder: Keeps the rounded weights between runs, and samples that no zoo entry holds.
        bits: The widths; `Setting.weights` wants all of `BITS`.

    Returns:
        The setting.
    """
    model = fetch(subject.model) / "model.onnx"
    job = prepare(model, _samples(subject, folder), QuantizeSpec(budget=Budget(size=1.0)))
    samples = _choose(job.samples, subject)
    seen = samples.take(np.arange(subject.rounding))
    scoring = samples.take(np.arange(subject.rounding, subject.rounding + subject.scoring))
    start = subject.rounding + subject.scoring
    measuring = samples.take(np.arange(start, start + subject.measuring))
    few = scoring.first(samples.batch or 8)
    with torch.no_grad():
        outputs = job.program.evaluate(_tensors(few))
    axes = find_sample_axes(job.program, _tensors(few), outputs, few.batch)
    objective = choose_loss(job.model, outputs, few.count, axes)
    path = folder / "rounded.npz"
    if not path.exists():
        rounded = round_weights(
            CalibrationMoments(job.network, seen, 0),
            {layer.name: bits for layer in job.layers},
            WeightOptions(),
            on_progress=lambda _fraction, _message: None,
        )
        _save(path, rounded)
    return Setting(job, objective, scoring, measuring, _load(path))


def _samples(subject: Subject, folder: Path) -> Path:
    if isinstance(subject.data, str):
        return fetch(subject.data) / "samples.npz"
    path = folder / "samples.npz"
    if not path.exists():
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, allow_pickle=False, **subject.data(zoo_folder()))
        partial.rename(path)
    return path


def _choose(samples: Samples, subject: Subject) -> Samples:
    if subject.longest is not None:
        kept = np.flatnonzero(samples.inputs["attention_mask"].sum(axis=1) <= subject.longest)
        short = samples.take(kept)
        return Samples({name: array[:, : subject.longest] for name, array in short.inputs.items()})
    if subject.mirrored:
        # An image and its mirror image follow each other, so that no set but one holds both.
        pairs = {
            name: np.stack([array, array[..., ::-1]], axis=1).reshape(-1, *array.shape[1:])
            for name, array in samples.inputs.items()
        }
        return Samples(pairs, batch=samples.batch)
    return Samples(samples.inputs, batch=samples.batch)


def _tensors(samples: Samples) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in samples.inputs.items()}


def _save(path: Path, rounded: RoundedWeights) -> None:
    arrays: dict[str, np.ndarray] = {}
    for name, row in rounded.items():
        for bits, weight in row.items():
            key = f"{name}|{bits}"
            arrays[f"{key}|codes"], arrays[f"{key}|scale"] = weight.codes, weight.scale
            arrays[f"{key}|axis"] = np.array(-1 if weight.axis is None else weight.axis)
            if weight.bias is not None:
                arrays[f"{key}|bias|{weight.bias.name}"] = weight.bias.values
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, allow_pickle=False, **arrays)
    partial.rename(path)


def _load(path: Path) -> RoundedWeights:
    rounded: dict[str, dict[int, QuantizedWeight]] = {}
    with np.load(path, allow_pickle=False) as file:
        biases = {
            tuple(key.split("|")[:2]): CorrectedBias(key.split("|", 3)[3], file[key])
            for key in file.files
            if "|bias|" in key
        }
        for key in file.files:
            name, bits, part = key.split("|")[:3]
            if part == "codes":
                axis = int(file[f"{name}|{bits}|axis"])
                rounded.setdefault(name, {})[int(bits)] = QuantizedWeight(
                    codes=file[key],
                    scale=file[f"{name}|{bits}|scale"],
                    axis=None if axis < 0 else axis,
                    bits=int(bits),
                    bias=biases.get((name, bits)),
                )
    return rounded
