"""Reconstruction block by block: codes of each block tuned until its outputs come close to the float net's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.codes import QuantizedWeight
from quant_core.errors import NonFiniteError
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.input_moments import has_moments
from quant_core.quantizers.tuning.blocks import Block, find_blocks
from quant_core.quantizers.tuning.learned_codes import RATES, Kind, LearnedCodes
from quant_core.quantizers.tuning.tuning_samples import affordable_batch, random_batches, share
from quant_core.spec.progress import Tell

Hook = Callable[[Tensor], Tensor]
Values = Mapping[str, Tensor]
_CACHE_BYTES = 1 << 30
"""Bytes of what blocks read and should give that are kept for all samples."""
_TINY = 1e-12
STEPS = 400
"""Updates of a block that a request gets."""


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
    """

    rates: Mapping[Kind, float] = field(default_factory=lambda: RATES)
    weighted: bool = True
    drop: float = 1.0


BRECQ = Method()
QDROP = Method(weighted=False, drop=0.5)


@dataclass(frozen=True, eq=False)
class ReconstructedBlocks:
    """Weights after tuning.

    Attributes:
        weights: Layer name -> codes, scales and bias.
        errors: For each block, relative error of its outputs before and after on samples that did not tune. Where the
            second is not lower, the block's weights are those given.
    """

    weights: Mapping[str, QuantizedWeight]
    errors: tuple[tuple[float, float], ...]


def reconstruct_blocks(
    network: FloatNetwork,
    weights: Mapping[str, QuantizedWeight],
    samples: Samples,
    method: Method,
    *,
    hooks: Mapping[str, Hook],
    probe: Probe | None,
    steps: int,
    seed: int,
    on_progress: Tell,
    earlier: ReconstructedBlocks | None = None,
    on_block: Callable[[ReconstructedBlocks], None] = lambda _: None,
) -> ReconstructedBlocks:
    """Tune rounded weights block by block in graph order, starting from given ones; bit-widths and bytes stay.

    Minimises for each block `E = mean g^2 (z - z_float)^2 / mean g^2 z_float^2` over the block's outputs z, with what
    the rounded blocks before it give as its input. With g^2 the diagonal of the loss's Gauss-Newton matrix at z this is
    BRECQ (Li et al., arXiv:2102.05426, equation 10), with g = 1 and activations inside the block and at its inputs
    rounded at random QDrop (Wei et al., arXiv:2203.05740, equation 8). Codes move by Adam straight through the
    rounding, scales and biases with them (`learned_codes.py`): in the hundreds of steps that there is time for, the
    rectified sigmoids of those papers, which take thousands, do not settle.

    One sample in eight, of few samples eight or half, tunes nothing and tells for each block whether it is better. What
    a block reads and should give is kept for as many samples as take a gigabyte.

    Args:
        network: The float network; tables and left-hand operands stay as they are.
        weights: Layer name -> codes to start from; layers without stay in float.
        samples: Calibration samples.
        method: How.
        hooks: Tensor name -> rounding of that activation, differentiable.
        probe: Square root of the loss's curvature; needed by methods that weigh.
        steps: Updates of each block; 0 gives the weights back.
        seed: Seed of the order of the samples and of what is dropped.
        on_progress: Called with the fraction done and a message; may raise to stop.
        earlier: What an earlier run that was stopped gave to `on_block`, to go on from; the result is the same.
        on_block: Given all weights and the errors so far whenever a block is done.

    Returns:
        The tuned weights.

    Raises:
        NonFiniteError: If an error becomes NaN or infinite.
    """
    program, model = network.program, network.model
    rounded = [layer for layer in network.layers if layer.name in weights]
    tuned = {layer.name: layer for layer in rounded if has_moments(layer)}
    blocks = find_blocks(model, rounded, tuned)
    if method.weighted and probe is not None:
        touched = {use.output for layer in rounded for use in layer.uses}
        touched = touched.union(*map(program.downstream, touched))
        blocks = _up_to(touched.intersection(probe.tensors), blocks, program)
    parts = share(samples)
    if parts is None or not steps or not blocks:
        return ReconstructedBlocks(dict(weights), ())
    size = min(affordable_batch(network.layers, samples, steps, network.batch_size), parts[0].count)
    walk = _Walk(program, method, hooks, torch.Generator(program.device))
    tuning, checking = (walk.affordable(part, blocks, size) for part in parts)
    known = [
        _Known.of(batch, program.device) for batch in random_batches(tuning, size, tuning.count // size, seed)
    ]
    checked = [_Known.of(batch, program.device) for batch in checking.batches(size)]
    done = earlier or ReconstructedBlocks(dict(weights), ())
    stand_ins = _tensors(program, rounded, weights)
    for number, block in enumerate(blocks):
        walk.chance.manual_seed(seed * len(blocks) + number)
        resumed = number < len(done.errors)
        for held in (*known, *checked):
            walk.aim(block, held, probe if method.weighted and not resumed else None)
        if not resumed:
            output = next(iter(known[0].judged.values()), None)
            learned = {
                name: LearnedCodes(model, tuned[name], weights[name], output)
                for name in block.layers
                if output is not None
            }

            def tell(step: int, at: int = number) -> None:
                told = f"block {at + 1} of {len(blocks)}, step {step} of {steps}"
                on_progress((at + step / steps) / len(blocks), f"reconstruction: {told}")

            before = walk.errors(block, checked, stand_ins)
            if learned:
                walk.tune(block, known, stand_ins, learned, steps, tell)
            results = {name: codes.result() for name, codes in learned.items()}
            changed = stand_ins | _tensors(program, [tuned[name] for name in results], results)
            after = walk.errors(block, checked, changed)
            better = results if after < before else {}
            done = ReconstructedBlocks({**done.weights, **better}, (*done.errors, (before, after)))
            on_block(done)
        stand_ins |= _tensors(program, [tuned[name] for name in block.layers], done.weights)
        later = {name for following in blocks[number + 1 :] for name in following.inputs}
        for held in (*known, *checked):
            walk.advance(block, held, stand_ins, later)
    return done


@dataclass(eq=False)
class _Known:
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
    def of(cls, batch: Samples, device: torch.device) -> _Known:
        return cls(batch, batch.feeds(device))

    @property
    def judged(self) -> dict[str, Tensor]:
        """What of the block's outputs is of floating point: how far off a number of a class is tells nothing."""
        return {name: value for name, value in self.target.items() if value.is_floating_point()}


def _up_to(read: Collection[str], blocks: Sequence[Block], program: Program) -> tuple[Block, ...]:
    """Let blocks give what the loss reads inside them, such as logits, in place of what is made of that."""
    found = list(blocks)
    for tensor in sorted({*read}.difference(*(block.outputs for block in blocks))):
        behind = program.downstream(tensor)
        at = next((n for n, block in enumerate(found) if behind.intersection(block.outputs)), None)
        if at is not None:
            later = {name for block in found[at + 1 :] for name in block.inputs}
            kept = [name for name in found[at].outputs if name in later or name not in behind]
            found[at] = replace(found[at], outputs=(*kept, tensor))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Walk:
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

    def aim(self, block: Block, held: _Known, probe: Probe | None) -> None:
        """Find what a block should give, and how much each of its outputs counts."""
        with torch.no_grad():
            held.target = self.program.evaluate(held.feeds | held.clean, block.outputs)
        held.weights = {} if probe is None else self._curvature(held, probe)

    def _curvature(self, held: _Known, probe: Probe) -> dict[str, Tensor]:
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

    def run(self, block: Block, held: _Known, stand_ins: Values, *, random: bool) -> dict[str, Tensor]:
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

    def error(self, held: _Known, values: Values) -> Tensor:
        """Mean weighted relative squared error of a block's outputs."""
        errors = []
        for name, wanted in held.judged.items():
            weight = held.weights.get(name, torch.ones((), device=self.program.device))
            unit = (weight * wanted.square()).mean().clamp_min(_TINY)
            errors.append((weight * (values[name] - wanted).square()).mean() / unit)
        return torch.stack(errors).mean() if errors else torch.zeros((), device=self.program.device)

    def errors(self, block: Block, known: Sequence[_Known], stand_ins: Values) -> float:
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
        known: Sequence[_Known],
        fixed: Values,
        learned: Mapping[str, LearnedCodes],
        steps: int,
        tell: Callable[[int], None],
    ) -> None:
        """Update the codes of one block."""
        unit = max(self.errors(block, known, fixed), _TINY)
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

    def _order(self, known: Sequence[_Known], steps: int) -> Iterator[_Known]:
        waiting: list[int] = []
        for _ in range(steps):
            if not waiting:
                waiting = torch.randperm(
                    len(known), generator=self.chance, device=self.program.device
                ).tolist()
            yield known[waiting.pop()]

    def advance(self, block: Block, held: _Known, stand_ins: Values, later: Collection[str]) -> None:
        """Let a batch pass a block; what no later block reads is forgotten."""
        with torch.no_grad():
            noisy = held.noisy | self.run(block, held, stand_ins, random=False)
        clean = held.clean | held.target
        held.noisy, held.clean = (
            {name: value for name, value in values.items() if name in later} for values in (noisy, clean)
        )
        held.target, held.weights = {}, {}


def _tensors(
    program: Program, layers: Sequence[Layer], weights: Mapping[str, QuantizedWeight]
) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(np.array(values)).to(program.weights[name])
        for layer in layers
        for name, values in weights[layer.name].stand_ins(layer.weight).items()
    }
