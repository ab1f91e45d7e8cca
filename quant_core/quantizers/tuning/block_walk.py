"""Batches of samples on their way through the blocks of a network, in float and rounded beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.errors import NonFiniteError
from quant_core.executor import Program
from quant_core.quantizers.tuning.blocks import Block
from quant_core.quantizers.tuning.learned_codes import RATES, Kind, LearnedCodes

Hook = Callable[[Tensor], Tensor]
Values = Mapping[str, Tensor]
_CACHE_BYTES = 1 << 30
"""Bytes of what blocks read and should give that are kept for all samples."""
_TINY = 1e-12


@dataclass(frozen=True)
class Probe:
    """A square root of the loss's curvature.

    Attributes:
        draw: Values of `tensors`, the samples they belong to, a source of chance -> a scalar whose gradient g in the
            values has `E[g g^T] = H`, the loss's Hessian there.
        tensors: What the loss is computed from.
    """

    draw: Callable[[Values, Samples, torch.Generator], Tensor]
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Method:
    """How blocks are reconstructed.

    Attributes:
        rates: Learning rates of Adam for what is tuned.
        weighted: Whether errors of a block's outputs are weighted by the loss's curvature there.
        drop: Probability that a rounded activation is left in float; 1 for float activations throughout.
        steps: Updates of each block; with 0 none is tuned.
    """

    rates: Mapping[Kind, float] = field(default_factory=lambda: RATES)
    weighted: bool = True
    drop: float = 1.0
    steps: int = 400


@dataclass(eq=False)
class BlockBatch:
    """One batch on its way through the blocks.

    Attributes:
        batch: The samples.
        feeds: Graph inputs.
        clean: Tensors of the float network that later blocks read.
        noisy: The same of the rounded one.
        target: Float outputs of the block at hand.
        weights: Factors of their squared errors; empty for 1.
    """

    batch: Samples
    feeds: dict[str, Tensor]
    clean: dict[str, Tensor] = field(default_factory=dict)
    noisy: dict[str, Tensor] = field(default_factory=dict)
    target: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Samples, device: torch.device) -> BlockBatch:
        """Give a batch that has passed no block yet."""
        return cls(batch, batch.feeds(device))

    @property
    def judged(self) -> dict[str, Tensor]:
        """What of the block's outputs is of floating point: how far off a number of a class is tells nothing."""
        return {name: value for name, value in self.target.items() if value.is_floating_point()}


@dataclass(frozen=True, eq=False)
class BlockWalk:
    """Runs blocks of the float and of the rounded network."""

    program: Program
    method: Method
    hooks: Mapping[str, Hook]
    chance: torch.Generator

    def affordable(self, samples: Samples, blocks: Sequence[Block], size: int) -> Samples:
        """Give as many samples as what the largest block reads and gives can be kept for."""
        first = samples.first(size)
        names = [(*block.inputs, *block.inputs, *block.outputs, *block.outputs) for block in blocks]
        with torch.no_grad():
            found = self.program.evaluate(
                first.feeds(self.program.device), {name for row in names for name in row}
            )
        held = max(sum(found[name].nbytes for name in row) for row in names) / first.count
        return samples.first(max(size, int(_CACHE_BYTES / max(held, 1.0))))

    def aim(self, block: Block, held: BlockBatch, probe: Probe | None) -> None:
        """Find what a block should give, and how much each of its outputs counts."""
        with torch.no_grad():
            held.target = self.program.evaluate(held.feeds | held.clean, block.outputs)
        held.weights = {} if probe is None else self._curvature(held, probe)

    def _curvature(self, held: BlockBatch, probe: Probe) -> dict[str, Tensor]:
        leaves = {name: value.detach().requires_grad_() for name, value in held.judged.items()}
        outputs = self.program.evaluate(held.feeds | held.clean | held.target | leaves, probe.tensors)
        scalar = probe.draw(outputs, held.batch, self.chance)
        if not leaves or not scalar.requires_grad:  # the loss reads nothing of this block
            return {}
        gradients: Sequence[Tensor | None] = torch.autograd.grad(
            scalar, list(leaves.values()), allow_unused=True
        )
        squares = {
            name: torch.zeros_like(leaves[name]) if gradient is None else gradient.square()
            for name, gradient in zip(leaves, gradients, strict=True)
        }
        return {
            name: square / square.mean() if bool(square.any()) else torch.ones_like(square)
            for name, square in squares.items()
        }

    def run(self, block: Block, held: BlockBatch, stand_ins: Values, *, random: bool) -> dict[str, Tensor]:
        """Run a block of the rounded network."""
        entering = {name: held.noisy[name] for name in block.inputs}
        drop = self.method.drop
        hooks = {n: h for n, h in self.hooks.items() if n not in entering} if drop < 1 else {}
        if random and drop < 1:
            entering = {name: self._mixed(held.clean[name], value) for name, value in entering.items()}
            hooks = {
                name: partial(self._dropped, hook)
                for name, hook in hooks.items()
                if name not in block.outputs
            }
        return self.program.evaluate(held.feeds | entering, block.outputs, weights=stand_ins, replace=hooks)

    def _dropped(self, hook: Hook, x: Tensor) -> Tensor:
        return self._mixed(x, hook(x))

    def _mixed(self, clean: Tensor, rounded: Tensor) -> Tensor:
        kept = torch.rand(clean.shape, generator=self.chance, device=clean.device) < self.method.drop
        return torch.where(kept, clean, rounded)

    def error(self, held: BlockBatch, values: Values) -> Tensor:
        """Mean weighted relative squared error of a block's outputs."""
        errors = []
        for name, wanted in held.judged.items():
            weight = held.weights.get(name, torch.ones((), device=self.program.device))
            unit = (weight * wanted.square()).mean().clamp_min(_TINY)
            errors.append((weight * (values[name] - wanted).square()).mean() / unit)
        return torch.stack(errors).mean() if errors else torch.zeros((), device=self.program.device)

    def errors(self, block: Block, known: Sequence[BlockBatch], stand_ins: Values) -> float:
        """Mean over batches, without chance."""
        with torch.no_grad():
            found = [
                (held.batch.count, float(self.error(held, self.run(block, held, stand_ins, random=False))))
                for held in known
            ]
        return sum(count * error for count, error in found) / sum(count for count, _ in found)

    def tune(
        self,
        block: Block,
        known: Sequence[BlockBatch],
        fixed: Values,
        learned: Mapping[str, LearnedCodes],
        tell: Callable[[int], None],
    ) -> None:
        """Update the codes of one block."""
        unit, steps = max(self.errors(block, known, fixed), _TINY), self.method.steps
        groups = [
            {"params": values, "lr": rate}
            for kind, rate in self.method.rates.items()
            if (values := [value for codes in learned.values() for value in codes.parameters(kind)])
        ]
        optimizer = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step, held in enumerate(self._order(known, steps)):
            stand_ins = dict(fixed)
            for codes in learned.values():
                stand_ins |= codes.stand_ins()
            loss = self.error(held, self.run(block, held, stand_ins, random=True)) / unit
            if not bool(torch.isfinite(loss)):
                raise NonFiniteError(
                    "the quantized network gives NaN or infinity while its codes are tuned.",
                    remedy="Ask for another rounding, such as gptq.",
                    where=block.layers[0],
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            for codes in learned.values():
                codes.project()
            tell(step + 1)

    def _order(self, known: Sequence[BlockBatch], steps: int) -> Iterator[BlockBatch]:
        waiting: list[int] = []
        for _ in range(steps):
            if not waiting:
                waiting = torch.randperm(
                    len(known), generator=self.chance, device=self.program.device
                ).tolist()
            yield known[waiting.pop()]

    def advance(self, block: Block, held: BlockBatch, stand_ins: Values, later: Collection[str]) -> None:
        """Let a batch pass a block; what no later block reads is forgotten."""
        with torch.no_grad():
            noisy = held.noisy | self.run(block, held, stand_ins, random=False)
        clean = held.clean | held.target
        held.noisy, held.clean = (
            {name: value for name, value in values.items() if name in later} for values in (noisy, clean)
        )
        held.target, held.weights = {}, {}
