"""Codes, scales and biases of a whole plan, tuned together until the network computes what the float one does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.codes import QuantizedWeight
from quant_core.errors import NonFiniteError
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.input_moments import has_moments
from quant_core.quantizers.learned_codes import RATES, Kind, LearnedCodes
from quant_core.quantizers.read_positions import reads_in_part, run_and_see
from quant_core.quantizers.tuning_samples import affordable_batch, feeds, random_batches, share

_KINDS: tuple[Kind, ...] = ("codes", "scales", "biases")
_TINY = 1e-12
_CHECK_EVERY = 25
STEPS = 200


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """Weights after tuning.

    Attributes:
        weights: Layer name -> codes, scales and bias.
        before: Error of the weights given, on samples that did not tune.
        after: Error of the tuned ones there, the least that was seen. Where it is not lower, the weights are those
            given. Both are NaN where there is one sample, which cannot do both.
    """

    weights: Mapping[str, QuantizedWeight]
    before: float
    after: float


def reconstruct(
    program: Program,
    model: ir.Model,
    layers: Sequence[Layer],
    weights: Mapping[str, QuantizedWeight],
    samples: Samples,
    outputs: Sequence[str],
    *,
    steps: int,
    batch_size: int,
    device: str,
    seed: int,
    on_progress: Callable[[float, str], None],
) -> Reconstructed:
    """Tune rounded weights, starting from given ones; bit-widths and bytes stay.

    Minimises over random batches `E = mean_t e_t + mean_o e_o` with `e = |a - a_float|^2 / |a_float|^2`, over the
    activations a_t that enter the layers and the outputs a_o. The outputs of few samples alone, or their loss, would be
    learned by heart; activations give thousands of targets a sample, as reconstruction block by block does (Li et al.,
    BRECQ, arXiv:2102.05426, section 3.2), here for all blocks in one pass, so that each sees the errors of those before
    it (Wei et al., QDrop, arXiv:2203.05740). Rows that the outputs do not read, such as padding, do not count.

    In a third of the steps scales and biases move (Esser et al., LSQ, arXiv:1902.08153), which a few samples cannot
    spoil; in the others codes as well, by Adam on their value before rounding, straight through the rounding. One
    sample in eight, of few samples one in two, tunes nothing; on these E is measured every 25 steps, and the best
    weights that were seen are kept, of those whose outputs come closer as well: on few samples activations may while
    outputs do not. Memory does not grow with the samples.

    Args:
        program: The float network.
        model: The graph it was compiled from.
        layers: Its layers; tables and left-hand operands stay as they are.
        weights: Layer name -> codes to start from; layers without stay in float.
        samples: Calibration samples.
        outputs: Outputs that count, or tensors close to them.
        steps: Updates.
        batch_size: Most samples a run.
        device: Where the program computes.
        seed: Seed of the order of the samples.
        on_progress: Called with the fraction done and a message; may raise to stop.

    Returns:
        The tuned weights.

    Raises:
        NonFiniteError: If the error becomes NaN or infinite.
    """
    size = affordable_batch(layers, samples, steps, batch_size)
    parts = share(samples)
    if parts is None:
        return Reconstructed(dict(weights), math.nan, math.nan)
    tuning, checking = parts
    network = _Network.of(program, model, layers, weights, outputs, tuning, size, device)
    before, outputs_before = network.check(checking, size)
    best, after = dict(weights), before
    batches = random_batches(tuning, size, steps, seed)
    done = 0
    for length, kinds in ((steps // 3, _KINDS[1:]), (steps - steps // 3, _KINDS)):
        network = network.at(model, best)
        optimizer = torch.optim.Adam(network.groups(kinds))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, length))
        for step, batch in enumerate(itertools.islice(batches, length), 1):
            of_outputs, of_features = network.errors(batch)
            loss = (of_outputs + of_features) / max(before, _TINY)
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
            for learned in network.learned.values():
                learned.project()
            done += 1
            on_progress(done / steps, f"reconstruction: step {done} of {steps}")
            if step % _CHECK_EVERY == 0 or step == length:
                found, outputs_found = network.check(checking, size)
                if found < after and outputs_found < outputs_before:
                    best, after = best | network.results(), found
    return Reconstructed(best, before, after)


@dataclass(frozen=True, eq=False)
class _Network:
    """The network with learned codes beside the float one.

    Attributes:
        program: The float network.
        outputs: Tensors that count as outputs.
        features: Activation that enters layers -> what these layers write.
        learned: Layer name -> its codes.
        fixed: Weights that are rounded and stay.
        tuned: Layers whose codes are learned.
        written: What they write for a few samples.
        in_part: Whether some rows are never read.
        device: Where to compute.
    """

    program: Program
    outputs: tuple[str, ...]
    features: Mapping[str, tuple[str, ...]]
    learned: Mapping[str, LearnedCodes]
    fixed: Mapping[str, Tensor]
    tuned: Sequence[Layer]
    written: Mapping[str, Tensor]
    in_part: bool
    device: str

    @classmethod
    def of(
        cls,
        program: Program,
        model: ir.Model,
        layers: Sequence[Layer],
        weights: Mapping[str, QuantizedWeight],
        outputs: Sequence[str],
        samples: Samples,
        size: int,
        device: str,
    ) -> _Network:
        rounded = [layer for layer in layers if layer.name in weights]
        tuned = [layer for layer in rounded if has_moments(layer)]
        first = next(samples.batches(size))
        with torch.no_grad():
            written = program.evaluate(feeds(first, device), outputs=[layer.outputs[0] for layer in tuned])
        uses = [use for layer in tuned for use in layer.uses if use.input not in program.inputs]
        return cls(
            program,
            tuple(outputs),
            {
                name: tuple(use.output for use in uses if use.input == name)
                for name in (u.input for u in uses)
            },
            {},
            {
                name: torch.from_numpy(values).to(program.weights[name])
                for layer in rounded
                if layer not in tuned
                for name, values in weights[layer.name].stand_ins(layer.weight).items()
            },
            tuned,
            written,
            reads_in_part(program, tuned, samples, device),
            device,
        ).at(model, weights)

    def at(self, model: ir.Model, weights: Mapping[str, QuantizedWeight]) -> _Network:
        """The same network with parameters that start from given weights."""
        learned = {
            layer.name: LearnedCodes(model, layer, weights[layer.name], self.written[layer.outputs[0]])
            for layer in self.tuned
        }
        return replace(self, learned=learned)

    def results(self) -> dict[str, QuantizedWeight]:
        """Weights as they are now."""
        return {name: codes.result() for name, codes in self.learned.items()}

    def groups(self, kinds: Sequence[Kind]) -> list[dict[str, Any]]:
        """Parameters of some kinds, by learning rate."""
        groups = [
            {
                "params": [value for codes in self.learned.values() for value in codes.parameters(kind)],
                "lr": RATES[kind],
            }
            for kind in kinds
        ]
        return [group for group in groups if group["params"]]

    def errors(self, batch: Samples) -> tuple[Tensor, Tensor]:
        """Mean relative squared errors: of the outputs, and of what enters layers."""
        given, names = feeds(batch, self.device), tuple(dict.fromkeys((*self.features, *self.outputs)))
        read: Mapping[str, Tensor] = {}
        if self.in_part:
            run = run_and_see(self.program, given, names, self.tuned, batch.count)
            wanted, read = run.values, run.read
        else:
            with torch.no_grad():
                wanted = self.program.evaluate(given, outputs=names)
        weights = dict(self.fixed)
        for codes in self.learned.values():
            weights |= codes.stand_ins()
        values = self.program.evaluate(given, outputs=names, weights=weights)
        errors = []
        for name, written in self.features.items():
            known = [read[output] for output in written if output in read]
            rows = torch.stack(known).any(0) if len(known) == len(written) else None
            errors.append(_relative(values[name], wanted[name], rows))
        error = torch.stack([_relative(values[name], wanted[name], None) for name in self.outputs]).mean()
        return error, torch.stack(errors).mean() if errors else torch.zeros_like(error)

    def check(self, samples: Samples, size: int) -> tuple[float, float]:
        """Mean over samples of all errors, and of those of the outputs."""
        outputs = total = 0.0
        with torch.no_grad():
            for batch in samples.batches(size):
                of_outputs, of_features = self.errors(batch)
                outputs += batch.count * float(of_outputs)
                total += batch.count * float(of_outputs + of_features)
        return total / samples.count, outputs / samples.count


def _relative(value: Tensor, wanted: Tensor, rows: Tensor | None) -> Tensor:
    if rows is not None:
        value, wanted = (x.reshape(-1, x.shape[-1])[rows] for x in (value, wanted))
    return (value - wanted).square().mean() / wanted.square().mean().clamp_min(_TINY)
