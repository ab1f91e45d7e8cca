"""Reconstruction block by block: codes of each block tuned until its outputs come close to the float net's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.codes import QuantizedWeight
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.input_moments import has_moments
from quant_core.quantizers.tuning.block_walk import BlockBatch, BlockWalk, Hook, Method, Probe
from quant_core.quantizers.tuning.blocks import Block, find_blocks
from quant_core.quantizers.tuning.learned_codes import LearnedCodes
from quant_core.quantizers.tuning.tuning_samples import affordable_batch, random_batches, share
from quant_core.spec.progress import Tell

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
    start: ReconstructedBlocks,
    samples: Samples,
    method: Method,
    *,
    hooks: Mapping[str, Hook],
    probe: Probe | None,
    seed: int,
    on_progress: Tell,
) -> Iterator[ReconstructedBlocks]:
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
        start: Codes to start from and no errors, or what an earlier run that was stopped gave last, to go on from;
            either comes to the same. Layers without codes stay in float.
        samples: Calibration samples.
        method: How.
        hooks: Tensor name -> rounding of that activation, differentiable.
        probe: Square root of the loss's curvature; needed by methods that weigh.
        seed: Seed of the order of the samples and of what is dropped.
        on_progress: Called with the fraction done and a message; may raise to stop.

    Yields:
        All weights and the errors so far, whenever a block is done; nothing where there are too few samples, no steps
        or no block to tune.

    Raises:
        NonFiniteError: If an error becomes NaN or infinite.
    """
    program, model, steps = network.program, network.model, method.steps
    rounded = [layer for layer in network.layers if layer.name in start.weights]
    tuned = {layer.name: layer for layer in rounded if has_moments(layer)}
    blocks = find_blocks(model, rounded, tuned)
    if method.weighted and probe is not None:
        touched = {use.output for layer in rounded for use in layer.uses}
        touched = touched.union(*map(program.downstream, touched))
        blocks = _up_to(touched.intersection(probe.tensors), blocks, program)
    parts = share(samples)
    if parts is None or not steps or not blocks:
        return
    size = min(affordable_batch(network.layers, samples, steps, network.batch_size), parts[0].count)
    walk = BlockWalk(program, method, hooks, torch.Generator(program.device))
    tuning, checking = (walk.affordable(part, blocks, size) for part in parts)
    known = [
        BlockBatch.of(batch, program.device)
        for batch in random_batches(tuning, size, tuning.count // size, seed)
    ]
    checked = [BlockBatch.of(batch, program.device) for batch in checking.batches(size)]
    done, stand_ins = start, _tensors(program, rounded, start.weights)
    for number, block in enumerate(blocks):
        walk.chance.manual_seed(seed * len(blocks) + number)
        resumed = number < len(start.errors)
        for held in (*known, *checked):
            walk.aim(block, held, probe if method.weighted and not resumed else None)
        if not resumed:
            output = next(iter(known[0].judged.values()), None)
            learned = {
                name: LearnedCodes(model, tuned[name], start.weights[name], output)
                for name in block.layers
                if output is not None
            }

            def tell(step: int, at: int = number) -> None:
                told = f"block {at + 1} of {len(blocks)}, step {step} of {steps}"
                on_progress((at + step / steps) / len(blocks), f"reconstruction: {told}")

            before = walk.errors(block, checked, stand_ins)
            if learned:
                walk.tune(block, known, stand_ins, learned, tell)
            results = {name: codes.result() for name, codes in learned.items()}
            changed = stand_ins | _tensors(program, [tuned[name] for name in results], results)
            after = walk.errors(block, checked, changed)
            better = results if after < before else {}
            done = ReconstructedBlocks({**done.weights, **better}, (*done.errors, (before, after)))
            yield done
        stand_ins |= _tensors(program, [tuned[name] for name in block.layers], done.weights)
        later = {name for following in blocks[number + 1 :] for name in following.inputs}
        for held in (*known, *checked):
            walk.advance(block, held, stand_ins, later)


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


def _tensors(
    program: Program, layers: Sequence[Layer], weights: Mapping[str, QuantizedWeight]
) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(np.array(values)).to(program.weights[name])
        for layer in layers
        for name, values in weights[layer.name].stand_ins(layer.weight).items()
    }
