"""Choose how channels are scaled, so that 8-bit inputs and low-bit weights together lose least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from quant_core.calibration import Samples
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.equalization.channel_group import ChannelGroup
from quant_core.quantizers.equalization.channel_scales import ChannelScales
from quant_core.quantizers.grids.elements import code_range

_LEVELS = 255
_FEWEST = 1e-3
"""Smallest extent that counts, relative to the mean one: a channel that was silent may speak on other samples."""

_STRENGTHS = (0.25, 0.5, 0.65, 0.8, 0.9, 1.0)
_CLIPS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.28)
_WORTH = 0.9
_PRICE = 100
"""How many dB of noise must go for the time of the whole file: 1 for each per cent of it."""
_ROWS = 128
_WORTH_A_PRODUCT = 0.5
"""What is left of the noise where a product is paid for that takes a pass over the tensor."""


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """What a tensor's channels held.

    Attributes:
        low: Smallest value of each sample and channel, at most 0, `[N, C]`.
        high: Largest value, at least 0, `[N, C]`.
        square: Mean square of each channel, `[C]`.
    """

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    square: npt.NDArray[np.float64]

    @property
    def extent(self) -> npt.NDArray[np.float64]:
        """Largest magnitude of each channel, `[C]`."""
        extent: npt.NDArray[np.float64] = np.maximum(self.high.max(0), -self.low.min(0))
        return extent


def channel_statistics(
    program: Program,
    axes: Mapping[str, int],
    samples: Samples,
    *,
    batch_size: int,
) -> dict[str, ChannelStatistics]:
    """Collect extremes and mean squares of channels.

    Args:
        program: The float program.
        axes: Tensor -> its channel axis.
        samples: What to run.
        batch_size: Samples a run.

    Returns:
        Tensor -> statistics.
    """
    found: dict[str, list[tuple[torch.Tensor, ...]]] = {name: [] for name in axes}
    for batch in samples.batches(batch_size):
        feeds = batch.feeds(program.device, fast=True)
        with torch.no_grad():
            values = feeds | program.evaluate(feeds, outputs=[name for name in axes if name not in feeds])
            for name, axis in axes.items():
                x = values[name].movedim(axis, -1)
                # A run whose first axis does not count samples is one sample.
                rows = x.reshape(batch.count if len(x) == batch.count else 1, -1, x.shape[-1])
                found[name].append(
                    (
                        rows.amin(1).clamp_max(0),
                        rows.amax(1).clamp_min(0),
                        batch.count * rows.square().mean((0, 1))[None],
                    )
                )
    result = {}
    for name, parts in found.items():
        low, high, square = (torch.cat(part).double().cpu().numpy() for part in zip(*parts, strict=True))
        result[name] = ChannelStatistics(low, high, square.sum(0) / samples.count)
    return result


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads a group.

    Attributes:
        weight: Its float weight, `[groups, outputs of each, inputs of each, taps]`; a share of the outputs where there
            are many.
        inputs: Statistics of its input.
        bits: Bits its weight is expected to get.
        dynamic: Whether its input is rounded over the range of each sample, or else of all.
    """

    weight: npt.NDArray[np.float32]
    inputs: ChannelStatistics
    bits: int
    dynamic: bool


def as_reader(
    layer: Layer,
    weight: npt.NDArray[np.floating],
    inputs: ChannelStatistics,
    *,
    bits: int,
    dynamic: bool,
) -> Reader:
    """Lay out what a layer takes from each channel.

    Args:
        layer: A Conv, ConvTranspose, Gemm or right-hand MatMul.
        weight: Its float weight.
        inputs: Statistics of its input.
        bits: Bits its weight is expected to get.
        dynamic: Whether its input is rounded at run time.

    Returns:
        The reader.
    """
    if layer.op == "Conv":
        blocks = weight.reshape(layer.group, layer.shape[0] // layer.group, layer.shape[1], -1)
    elif layer.op == "Gemm" and layer.axis == 0:
        blocks = weight[None, :, :, None]
    else:
        blocks = np.moveaxis(weight.reshape(*weight.shape[:2], -1), 0, 1)[None]
    step = max(1, blocks.shape[0] * blocks.shape[1] // _ROWS)
    return Reader(blocks[:, ::step].astype(np.float32), inputs, bits, dynamic)


def choose_scales(group: ChannelGroup, readers: Sequence[Reader], time: float = 0.0) -> ChannelScales | None:
    """Search the factors under which the readers' outputs are expected to change least.

    Candidates are `m_c^a / w_c^(1-a)` with m_c the largest or the root mean square input of channel c, w_c the largest
    weight that reads it, a the strength (Xiao et al., arXiv:2211.10438, equation 4; a = 1/2 equalises as Nagel et al.,
    arXiv:1906.04721, equation 11, do); `m_c^a` alone; and `max(1, m_c / k)`, which leaves all but outliers as they are.
    The error of a reader is `(E_x + E_w) / E_y`: `E_x = d^2/12 |S W|^2` for the step d that the divided input is
    rounded with, `E_w = sum_ic (Q(S W) - S W)_ic^2 x_c^2 / s_c^2`, and E_y the output's energy from channels alone.

    Args:
        group: The group.
        readers: Its readers.
        time: Share of the file's estimated time that the factors take; 0 where they fold.

    Returns:
        The factors, scaled to a geometric mean of 1 (of a Concat 1 for parts that stay, and the others relative to
        what these would have); None where they promise less than 10 %, or less than their time is worth.
    """
    before = _error(readers, np.ones(group.channels))
    least, best = before, None
    for factors in _candidates(readers):
        scaled = _centred(group, factors)
        error = _error(readers, scaled)
        if error < least:
            least, best = error, scaled
    if best is None or least > min(_WORTH, 10 ** (-_PRICE * time / 10)) * before:
        return None
    return ChannelScales.stored(group, best)


def _centred(group: ChannelGroup, factors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scale factors to a geometric mean of 1, of the channels that stay as they are where there are any."""
    stay = np.full(group.channels, bool(group.parts))
    for start, end in group.parts:
        stay[start:end] = False
    mean = np.exp(np.log(factors[stay] if stay.any() else factors).mean())
    return np.where(stay, 1.0, factors / mean)


def choose_output_scales(
    group: ChannelGroup, seen: ChannelStatistics, time: float = 0.0
) -> ChannelScales | None:
    """Give each channel of what an 8-bit kernel writes the whole grid.

    With s_c the largest magnitude of channel c the grid spans `[min_c low_c/s_c, max_c high_c/s_c]` and channel c is
    rounded with the step `d s_c` instead of d, so that the mean square of the rounding noise is `d^2/12 mean_c s_c^2`.

    Args:
        group: The group, with a product behind it.
        seen: Statistics of the tensor.
        time: Share of the file's estimated time that the product takes.

    Returns:
        The factors, scaled to a geometric mean of 1; None where more than half of the noise is left, or the time is
        worth more than what goes.
    """
    factors = _floored(seen.extent)
    factors = factors / np.exp(np.log(factors).mean())
    low, high = seen.low.min(0), seen.high.max(0)
    before = float(high.max() - low.min()) ** 2
    after = float((high / factors).max() - (low / factors).min()) ** 2 * float(np.square(factors).mean())
    worth = min(_WORTH_A_PRODUCT, 10 ** (-_PRICE * time / 10))
    return ChannelScales.stored(group, factors) if after <= worth * before else None


def _candidates(readers: Sequence[Reader]) -> Iterator[npt.NDArray[np.float64]]:
    largest = _floored(np.max([reader.inputs.extent for reader in readers], axis=0))
    usual = _floored(np.sqrt(np.mean([reader.inputs.square for reader in readers], axis=0)))
    weights = _floored(np.max([_taken(reader) for reader in readers], axis=0))
    for strength in _STRENGTHS:
        for extent in (largest, usual):
            yield extent**strength / weights ** (1 - strength)
            if strength < 1:
                yield extent**strength
    for outlier in (1.0, 1.5, 2.0, 3.0, 5.0):
        yield np.maximum(largest / (outlier * np.median(largest)), 1)


def _floored(extents: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mean = float(extents.mean())
    floored: npt.NDArray[np.float64] = np.maximum(extents, _FEWEST * mean if mean > 0 else 1.0)
    return floored


def _taken(reader: Reader) -> npt.NDArray[np.float64]:
    """Largest magnitude that a weight has for each input channel."""
    largest: npt.NDArray[np.float64] = np.abs(reader.weight).max((1, 3)).reshape(-1).astype(np.float64)
    return largest


def _error(readers: Sequence[Reader], factors: npt.NDArray[np.float64]) -> float:
    return sum(_reader_error(reader, factors) for reader in readers)


def _reader_error(reader: Reader, factors: npt.NDArray[np.float64]) -> float:
    groups, _, inputs, _ = reader.weight.shape
    shape = (groups, 1, inputs, 1)
    weight = reader.weight * factors.reshape(shape).astype(np.float32)
    axis = 1 if reader.dynamic else None
    low, high = (reader.inputs.low / factors).min(axis), (reader.inputs.high / factors).max(axis)
    step = float(np.mean(np.square(high - low))) / _LEVELS**2
    square = (reader.inputs.square / factors**2).reshape(shape).astype(np.float32)
    energy = float((np.square(weight) * square).sum())
    rounded = step / 12 * float(np.square(weight).sum()) + _weight_error(weight, square, reader.bits)
    return rounded / max(energy, 1e-30)


def _weight_error(weight: npt.NDArray[np.float32], square: npt.NDArray[np.float32], bits: int) -> float:
    """Error of nearest rounding under the best of a few ranges for each output."""
    low, high = code_range(bits)
    full = np.abs(weight).max((2, 3), keepdims=True) / high
    full = np.where(full > 0, full, 1)
    errors = []
    for clip in _CLIPS if bits < 8 else _CLIPS[:1]:
        scale = full * clip
        codes = np.clip(np.rint(weight / scale), low, high)
        errors.append((np.square(codes * scale - weight) * square).sum((2, 3)))
    return float(np.min(errors, axis=0).sum())
