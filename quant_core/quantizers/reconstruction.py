"""Codes, scales and biases of a whole plan, tuned together until the network computes what the float one does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from quant_core.quantizers.learned_codes import RATES, LearnedCodes
from quant_core.quantizers.tuning_samples import affordable_batch, feeds, random_batches, share

OutputLoss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Samples], Tensor]
"""Values, the float network's values, the samples they belong to -> mean loss."""

_OUTPUT_SHARE = 0.1
_TINY = 1e-12
STEPS = 400


@dataclass(frozen=True)
class Target:
    """What the quantized network should reproduce.

    Attributes:
        loss: Mean loss of the outputs against the float network's.
        tensors: Tensors that it is computed from.
    """

    loss: OutputLoss
    tensors: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """Weights after tuning.

    Attributes:
        weights: Layer name -> codes, scales and bias.
        before: Output loss of the weights given, on samples that did not tune.
        after: Output loss of the tuned ones there. Where it is not lower, the weights are those given. Both are NaN
            where there is one sample, which cannot do both.
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
    target: Target,
    *,
    steps: int,
    batch_size: int,
    device: str,
    seed: int,
    on_progress: Callable[[float, str], None],
) -> Reconstructed:
    """Tune rounded weights, starting from given ones; bit-widths and bytes stay.

    Minimises over random batches `F / F_0 + 0.1 L / L_0` with `F = mean_t |a_t - a_t,float|^2 / |a_t,float|^2` over the
    activations a_t that enter the layers, L the loss of the outputs, and F_0, L_0 their values at the start. The
    outputs of few samples alone would be learned by heart; activations give thousands of targets a sample, as
    reconstruction block by block does (Li et al., BRECQ, arXiv:2102.05426, section 3.2), here for all blocks in one
    pass, so that each sees the errors of those before it (Wei et al., QDrop, arXiv:2203.05740). Codes move by Adam on
    their value before rounding, straight through the rounding; scales and biases move with them (Esser et al., LSQ,
    arXiv:1902.08153).

    One sample in eight, of few samples one in two, tunes nothing and tells whether the result is better. Memory does
    not grow with the samples.

    Args:
        program: The float network.
        model: The graph it was compiled from.
        layers: Its layers; tables and left-hand operands stay as they are.
        weights: Layer name -> codes to start from; layers without stay in float.
        samples: Calibration samples.
        target: Loss of the outputs.
        steps: Updates.
        batch_size: Most samples a run.
        device: Where the program computes.
        seed: Seed of the order of the samples.
        on_progress: Called with the fraction done and a message; may raise to stop.

    Returns:
        The tuned weights.

    Raises:
        NonFiniteError: If the loss becomes NaN or infinite.
    """
    size = affordable_batch(layers, samples, steps, batch_size)
    parts = share(samples)
    if parts is None:
        return Reconstructed(dict(weights), math.nan, math.nan)
    tuning, checking = parts
    network = _Network.of(program, model, layers, weights, target, next(tuning.batches(size)), device)
    errors, before = network.check(checking, size)
    scales = (1 / max(errors, _TINY), _OUTPUT_SHARE / max(before, _TINY))
    optimizer = torch.optim.Adam(network.groups())
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
    )
    for step, batch in enumerate(random_batches(tuning, size, steps, seed)):
        errors_now, loss_now = network.losses(batch)
        loss = scales[0] * errors_now + scales[1] * loss_now
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
        on_progress((step + 1) / steps, f"reconstruction: step {step + 1} of {steps}")
    _, after = network.check(checking, size)
    if not after < before:
        return Reconstructed(dict(weights), before, after)
    tuned = {name: codes.result() for name, codes in network.learned.items()}
    return Reconstructed({**weights, **tuned}, before, after)


@dataclass(frozen=True, eq=False)
class _Network:
    """The network with learned codes beside the float one."""

    program: Program
    target: Target
    features: tuple[str, ...]
    learned: Mapping[str, LearnedCodes]
    fixed: Mapping[str, Tensor]
    device: str

    @classmethod
    def of(
        cls,
        program: Program,
        model: ir.Model,
        layers: Sequence[Layer],
        weights: Mapping[str, QuantizedWeight],
        target: Target,
        first: Samples,
        device: str,
    ) -> _Network:
        rounded = [layer for layer in layers if layer.name in weights]
        tuned = [layer for layer in rounded if has_moments(layer)]
        with torch.no_grad():
            outputs = program.evaluate(feeds(first, device), outputs=[layer.outputs[0] for layer in tuned])
        entering = dict.fromkeys(name for layer in tuned for name in layer.inputs)
        return cls(
            program,
            target,
            tuple(name for name in entering if name not in program.inputs),
            {
                layer.name: LearnedCodes(model, layer, weights[layer.name], outputs[layer.outputs[0]])
                for layer in tuned
            },
            {
                name: torch.from_numpy(values).to(program.weights[name])
                for layer in rounded
                if layer not in tuned
                for name, values in weights[layer.name].stand_ins(layer.weight).items()
            },
            device,
        )

    def groups(self) -> list[dict[str, Any]]:
        """Parameters by learning rate."""
        groups = [
            {
                "params": [value for codes in self.learned.values() for value in codes.parameters(kind)],
                "lr": rate,
            }
            for kind, rate in RATES.items()
        ]
        return [group for group in groups if group["params"]]

    def run(self, batch: Samples, *, quantized: bool) -> dict[str, Tensor]:
        """Features and outputs of one batch."""
        weights = dict(self.fixed) if quantized else None
        if weights is not None:
            for codes in self.learned.values():
                weights |= codes.stand_ins()
        names = tuple(dict.fromkeys((*self.features, *self.target.tensors)))
        return self.program.evaluate(feeds(batch, self.device), outputs=names, weights=weights)

    def losses(self, batch: Samples) -> tuple[Tensor, Tensor]:
        """Mean relative squared error of the features, and the loss of the outputs."""
        with torch.no_grad():
            wanted = self.run(batch, quantized=False)
        values = self.run(batch, quantized=True)
        errors = [
            (values[name] - wanted[name]).square().mean() / wanted[name].square().mean().clamp_min(_TINY)
            for name in self.features
        ]
        loss = self.target.loss(values, wanted, batch)
        return torch.stack(errors).mean() if errors else torch.zeros_like(loss), loss

    def check(self, samples: Samples, size: int) -> tuple[float, float]:
        """Means of both over samples."""
        totals = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for batch in samples.batches(size):
                totals += batch.count * torch.stack(self.losses(batch)).double().cpu()
        errors, loss = (totals / samples.count).tolist()
        return errors, loss
