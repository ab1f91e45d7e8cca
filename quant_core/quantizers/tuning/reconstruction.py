"""Codes, scales and biases of a whole plan, tuned together until the network computes what the float one does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.codes import QuantizedWeight
from quant_core.errors import NonFiniteError
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.chance import exceeds_chance
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.input_moments import has_moments
from quant_core.quantizers.moments.read_positions import reads_in_part, run_and_see
from quant_core.quantizers.moments.rows import rows_shape
from quant_core.quantizers.simulation.network import Simulation
from quant_core.quantizers.tuning.learned_codes import Kind, LearnedCodes
from quant_core.quantizers.tuning.tuning_samples import affordable_updates, mixed, random_batches, share
from quant_core.spec.progress import Tell

_TRAVEL = 2.4
"""How far a code may move in all, in steps, were its gradient always of one sign: half of it as rates fall."""
_REACH = 0.3
"""How far from its code a value before rounding starts at most, in steps."""
_PACE = 4e-3
"""Rate of scales and biases for a relative error of 1; they move in proportion to its root."""
_WARM_UP = 20
"""Updates over which rates rise."""
_CHECKS, _PATIENCE = 8, 2
"""How often the error is measured on samples that do not tune, and after how many times codes move, or all ends."""
_AVERAGED = 0.98
"""What running averages keep at each update, once there were enough."""
_ERRORS, _HOPE = 1.0, 0.5
"""By how many of its standard errors over samples the error must fall on those that did not tune: in the end, and by
the end of the first quarter for there to be others."""
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """Weights after tuning.

    Attributes:
        weights: Layer name -> codes, scales and bias.
        before: Typical error of the weights given, `exp mean (ln e_t + ln e_o) / 2` over samples that did not tune.
        after: Error of the tuned ones there, the least that was seen. NaN, as `before`, where there is one sample,
            which cannot do both.
        better: Whether it fell by more than chance; else the weights are those given.
    """

    weights: Mapping[str, QuantizedWeight]
    before: float
    after: float
    better: bool


def reconstruct(
    network: FloatNetwork,
    weights: Mapping[str, QuantizedWeight],
    simulation: Simulation,
    samples: Samples,
    outputs: Sequence[str],
    *,
    seed: int,
    on_progress: Tell,
    steps: int | None = None,
) -> Reconstructed:
    """Tune rounded weights, starting from given ones; bit-widths and bytes stay.

    Minimises over random batches `E = mean_t e_t + mean_o e_o` with `e = |a - a_float|^2 / |a_float|^2`, over the
    activations a_t that enter the layers and the outputs a_o, activations rounded as in the file. The outputs of few
    samples alone, or their loss, would be learned by heart; activations give thousands of targets a sample, as
    reconstruction block by block does (Li et al., BRECQ, arXiv:2102.05426, section 3.2), here for all blocks in one
    pass, so that each sees the errors of those before it. Rows that the outputs do not read, such as padding, do not
    count. The float net answers for any input, so that half of the samples are mixed with others (`mixed`).

    For a quarter of the updates scales and biases move (Esser et al., LSQ, arXiv:1902.08153), which a few samples
    cannot spoil; then codes as well, by Adam on their value before rounding, straight through the rounding. A bias
    takes up what its layer's weight moves the mean output by. What is judged and kept is the running average of what is
    tuned, so that codes which flip to and fro come to rest. One sample in eight, of few samples eight or half, tunes
    nothing; on these `(ln e_t + ln e_o) / 2` is measured eight times, in logarithms so that no sample whose answer tips
    over decides alone. The best weights are kept if it falls by more than its standard error over samples; where it
    has not fallen by half of that after the first quarter, the rest is left out. Memory does not grow with the samples.

    Args:
        network: The float network; tables and left-hand operands stay as they are.
        weights: Layer name -> codes to start from; layers without stay in float.
        simulation: The network with these weights and rounded activations.
        samples: Calibration samples.
        outputs: Outputs that count, or tensors close to them.
        seed: Seed of the order of the samples and of how they are mixed.
        on_progress: Called with the fraction done and a message; may raise to stop.
        steps: Updates; None for as many as bounded arithmetic allows.

    Returns:
        The tuned weights.

    Raises:
        NonFiniteError: If the error becomes NaN or infinite.
    """
    size, affordable = affordable_updates(network.layers, samples, network.batch_size)
    steps = affordable if steps is None else steps
    parts = share(samples)
    if parts is None:
        return Reconstructed(dict(weights), math.nan, math.nan, better=False)
    tuning, checking = parts
    pair = _Pair.of(network, weights, simulation, outputs, tuning, size)
    before, start = pair.check(checking, size)
    best, least, better = dict(weights), before, False
    rates: Mapping[Kind, float] = {
        "codes": _TRAVEL / max(1, steps),
        "scales": _PACE * math.sqrt(start),
        "biases": _PACE * math.sqrt(start),
    }
    groups = pair.groups(rates)
    tuned = [value for group in groups for value in group["params"]]
    if not tuned or not start:
        return Reconstructed(best, _typical(before), _typical(before), better=False)
    optimizer, averages = torch.optim.Adam(groups), _Averages(tuned)
    every = max(1, steps // _CHECKS)
    waits = [_PATIENCE * every * (group["kind"] == "codes") for group in groups]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [partial(_pace, steps, wait) for wait in waits])
    random = np.random.default_rng(seed)
    for step, batch in enumerate(random_batches(tuning, size, steps, seed), 1):
        loss = pair.errors(mixed(batch.shortened(), random)).sum(1).mean() / start
        if not bool(torch.isfinite(loss)):
            raise NonFiniteError(
                "the quantized network gives NaN or infinity while its codes are tuned.",
                remedy="Ask for another rounding, such as gptq.",
                where="rounding",
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        for learned in pair.learned.values():
            learned.project()
        averages.follow(step)
        on_progress(step / steps, f"reconstruction: step {step} of {steps}")
        if step % every and step < steps:
            continue
        with averages.in_place():
            found, _ = pair.check(checking, size)
            if float(found.mean()) < float(least.mean()):
                best, least = dict(weights) | pair.results(), found
                better = exceeds_chance(before - found, _ERRORS)
        if step == _PATIENCE * every and not exceeds_chance(before - least, _HOPE):
            break
    return Reconstructed(best if better else dict(weights), _typical(before), _typical(least), better)


def _pace(steps: int, wait: int, step: int) -> float:
    """Share of the learning rate: 0 while others go first, rising over some updates, falling along a cosine."""
    at, length = step - wait, max(1, steps - wait)
    return 0.0 if at < 0 else min(1.0, (at + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * at / length))


def _typical(logarithms: Tensor) -> float:
    return math.exp(float(logarithms.mean()))


class _Averages:
    """Running averages of what is tuned."""

    def __init__(self, tuned: Sequence[Tensor]) -> None:
        self._tuned = tuned
        self._averages = [value.detach().clone() for value in tuned]

    def follow(self, step: int) -> None:
        """Take in the values after so many updates; the first ones count less and less."""
        fading = 1 - min(_AVERAGED, step / (step + 10))
        for average, value in zip(self._averages, self._tuned, strict=True):
            average.lerp_(value.detach(), fading)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the averages stand where the values stand."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for value, other in zip(self._tuned, self._averages, strict=True):
            held = value.detach().clone()
            value.detach().copy_(other)
            other.copy_(held)


@dataclass(frozen=True, eq=False)
class _Pair:
    """The network with learned codes beside the float one.

    Attributes:
        program: The float network.
        simulation: The rounded one.
        outputs: Tensors that count as outputs.
        features: Activation that enters layers -> what these layers write.
        learned: Layer name -> its codes.
        tuned: Layers whose codes are learned.
        in_part: Whether some rows are never read.
    """

    program: Program
    simulation: Simulation
    outputs: tuple[str, ...]
    features: Mapping[str, tuple[str, ...]]
    learned: Mapping[str, LearnedCodes]
    tuned: Sequence[Layer]
    in_part: bool

    @classmethod
    def of(
        cls,
        network: FloatNetwork,
        weights: Mapping[str, QuantizedWeight],
        simulation: Simulation,
        outputs: Sequence[str],
        samples: Samples,
        size: int,
    ) -> _Pair:
        program = network.program
        tuned = [layer for layer in network.layers if layer.name in weights and has_moments(layer)]
        first = next(samples.batches(size))
        given = first.feeds(program.device)
        with torch.no_grad():
            read = [layer.uses[0].input for layer in tuned]
            named = [*(layer.outputs[0] for layer in tuned), *(name for name in read if name not in given)]
            values = given | program.evaluate(given, tuple(dict.fromkeys(named)))
        uses = [use for layer in tuned for use in layer.uses if use.input not in program.inputs]
        learned = {
            layer.name: LearnedCodes(
                network.model,
                layer,
                weights[layer.name],
                values[layer.outputs[0]],
                mean=_mean(layer, values[layer.uses[0].input]),
                reach=_REACH,
            )
            for layer in tuned
        }
        features = {
            name: tuple(use.output for use in uses if use.input == name) for name in (u.input for u in uses)
        }
        in_part = reads_in_part(program, tuned, samples)
        return cls(program, simulation, tuple(outputs), features, learned, tuned, in_part)

    def results(self) -> dict[str, QuantizedWeight]:
        """Weights as they are now."""
        return {name: codes.result() for name, codes in self.learned.items()}

    def groups(self, rates: Mapping[Kind, float]) -> list[dict[str, Any]]:
        """Parameters by learning rate."""
        groups = [
            {
                "params": [value for codes in self.learned.values() for value in codes.parameters(kind)],
                "lr": rate,
                "kind": kind,
            }
            for kind, rate in rates.items()
        ]
        return [group for group in groups if group["params"]]

    def errors(self, batch: Samples) -> Tensor:
        """Relative squared errors of the outputs, and of what enters layers, by sample: `[samples, 2]`."""
        given = batch.feeds(self.program.device, fast=True)
        names = tuple(dict.fromkeys((*self.features, *self.outputs)))
        read: Mapping[str, Tensor] = {}
        if self.in_part:
            run = run_and_see(self.program, given, names, self.tuned, batch.count)
            wanted, read = run.values, run.read
        else:
            with torch.no_grad():
                wanted = self.program.evaluate(given, outputs=names)
        weights = dict(self.simulation.weights)
        for codes in self.learned.values():
            weights |= codes.stand_ins()
        values = self.simulation.program.evaluate(
            given, outputs=names, weights=weights, replace=self.simulation.rounding_of(batch.count)
        )
        errors = []
        for name, written in self.features.items():
            known = [read[output] for output in written if output in read]
            rows = torch.stack(known).any(0) if len(known) == len(written) else None
            errors.append(_relative(values[name], wanted[name], rows, batch.count))
        error = torch.stack([_relative(values[n], wanted[n], None, batch.count) for n in self.outputs]).mean(
            0
        )
        return torch.stack([error, torch.stack(errors).mean(0) if errors else torch.zeros_like(error)], 1)

    def check(self, samples: Samples, size: int) -> tuple[Tensor, float]:
        """Logarithm of each sample's error, `(ln e_o + ln e_t) / 2`, and the mean error `e_o + e_t` of all."""
        with torch.no_grad():
            errors = torch.cat([self.errors(batch) for batch in samples.batches(size)])
        return errors.clamp_min(_TINY).log().mean(1), float(errors.sum(1).mean())


def _mean(layer: Layer, value: Tensor) -> Tensor | None:
    """Mean of each input of a layer, `[groups, inputs]`; None where inputs are not the channels of what it reads."""
    groups, _, inputs = rows_shape(layer)
    if layer.op == "ConvTranspose" or groups != layer.group or value.dim() < 2:
        return None
    rows = value.movedim(1 if layer.op == "Conv" else -1, -1)
    taps, rest = divmod(groups * inputs, rows.shape[-1])
    if rest or not taps:
        return None
    means = rows.reshape(-1, rows.shape[-1]).mean(0)
    return means.repeat_interleave(taps).reshape(groups, inputs)


def _relative(value: Tensor, wanted: Tensor, rows: Tensor | None, samples: int) -> Tensor:
    """Squared error of each sample over the mean square of all; of all alike where samples cannot be told apart."""
    errors, squares = (value - wanted).square(), wanted.square()
    if rows is not None:
        counted = rows.to(errors)[:, None]
        errors, squares = (x.reshape(-1, x.shape[-1]) * counted for x in (errors, squares))
    unit = squares.sum().clamp_min(_TINY * squares.numel()) / samples
    if not errors.dim() or len(errors) % samples:
        return (errors.sum() / samples / unit).expand(samples)
    return errors.reshape(samples, -1).sum(1) / unit
