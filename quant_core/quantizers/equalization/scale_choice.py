"""Choose how channels are scaled, so that 8-bit inputs and low-bit weights together lose least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quant_core.ingest.layer import Layer
from quant_core.quantizers.equalization.channel_group import ChannelGroup
from quant_core.quantizers.equalization.channel_scales import ChannelScales
from quant_core.quantizers.equalization.channel_statistics import ChannelStatistics
from quant_core.quantizers.grids.elements import code_range

_LEVELS = 255
_FEWEST = 0.05
"""Smallest extent that counts, relative to the mean one: a channel that was silent may speak on other samples, and
finer steps for it take nothing more from the noise of all."""
_FEWEST_WEIGHT = 1e-3

_STRENGTHS = (0.25, 0.5, 0.65, 0.8, 0.9, 1.0)
_CLIPS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.28)
_OUTLIERS = (1.0, 1.5, 2.0, 3.0, 5.0)
_WORTH = 0.9
_PRICE = 100
"""How many dB of noise must go for the time of the whole file: 1 for each per cent of it."""
_ROWS = 128
_WORTH_A_PRODUCT = 0.5
"""What is left of the noise where a product is paid for that takes a pass over the tensor."""


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
    Where d is found sample by sample, a channel is divided in the sample that holds its largest value by the factor
    that the other samples give it: what it reaches on a sample that no factor knows sets the step for all channels.

    Args:
        group: The group.
        readers: Its readers.
        time: Share of the file's estimated time that the factors take; 0 where they fold.

    Returns:
        The factors, scaled to a geometric mean of 1 (of a Concat 1 for parts that stay, and the others relative to
        what these would have); None where they promise less than 10 %, or less than their time is worth.
    """
    ones = np.ones(group.channels)
    before = _error(readers, ones, ones)
    least, best = before, None
    whole, others = _channels(readers)
    for factors, unseen in zip(_candidates(whole), _candidates(others), strict=True):
        mean, stay = _centre(group, factors)
        scaled = np.where(stay, 1.0, factors / mean)
        error = _error(readers, scaled, np.where(stay, 1.0, unseen / mean))
        if error < least:
            least, best = error, scaled
    if best is None or least > min(_WORTH, 10 ** (-_PRICE * time / 10)) * before:
        return None
    return ChannelScales.stored(group, best)


def _centre(group: ChannelGroup, factors: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.bool_]]:
    """Geometric mean of the factors, of the channels that stay as they are where there are any, and which these are."""
    stay = np.full(group.channels, bool(group.parts))
    for start, end in group.parts:
        stay[start:end] = False
    return float(np.exp(np.log(factors[stay] if stay.any() else factors).mean())), stay


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


@dataclass(frozen=True, eq=False)
class _Channels:
    """What factors are made of.

    Attributes:
        largest: Largest inputs, `[C]`.
        usual: Root mean square inputs, `[C]`.
        weights: Largest weights, `[C]`.
        middle: Median of the largest inputs over all samples.
    """

    largest: npt.NDArray[np.float64]
    usual: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    middle: float


def _candidates(channels: _Channels) -> Iterator[npt.NDArray[np.float64]]:
    for strength in _STRENGTHS:
        for extent in (channels.largest, channels.usual):
            yield extent**strength / channels.weights ** (1 - strength)
            if strength < 1:
                yield extent**strength
    for outlier in _OUTLIERS:
        yield np.maximum(channels.largest / (outlier * channels.middle), 1)


def _channels(readers: Sequence[Reader]) -> tuple[_Channels, _Channels]:
    """Read the channels over all samples, and each without the sample that holds its largest value."""
    weights = _floored(np.max([_taken(reader) for reader in readers], axis=0), _FEWEST_WEIGHT)
    inputs = [reader.inputs for reader in readers]
    (largest, usual), others = _extents(inputs), _extents([seen.without_top() for seen in inputs])
    middle = float(np.median(_floored(largest)))
    return (
        _Channels(_floored(largest), _floored(usual), weights, middle),
        _Channels(_floored(others[0], like=largest), _floored(others[1], like=usual), weights, middle),
    )


def _extents(
    inputs: Sequence[ChannelStatistics],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Largest and root mean square values of each channel."""
    largest: npt.NDArray[np.float64] = np.max([seen.extent for seen in inputs], axis=0)
    usual: npt.NDArray[np.float64] = np.sqrt(np.mean([seen.square for seen in inputs], axis=0))
    return largest, usual


def _floored(
    extents: npt.NDArray[np.float64], fewest: float = _FEWEST, *, like: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    mean = float((extents if like is None else like).mean())
    floored: npt.NDArray[np.float64] = np.maximum(extents, fewest * mean if mean > 0 else 1.0)
    return floored


def _taken(reader: Reader) -> npt.NDArray[np.float64]:
    """Largest magnitude that a weight has for each input channel."""
    largest: npt.NDArray[np.float64] = np.abs(reader.weight).max((1, 3)).reshape(-1).astype(np.float64)
    return largest


def _error(
    readers: Sequence[Reader], factors: npt.NDArray[np.float64], unseen: npt.NDArray[np.float64]
) -> float:
    return sum(_reader_error(reader, factors, unseen) for reader in readers)


def _reader_error(reader: Reader, factors: npt.NDArray[np.float64], unseen: npt.NDArray[np.float64]) -> float:
    groups, _, inputs, _ = reader.weight.shape
    shape = (groups, 1, inputs, 1)
    weight = reader.weight * factors.reshape(shape).astype(np.float32)
    low, high = reader.inputs.low / factors, reader.inputs.high / factors
    if reader.dynamic:
        top = reader.inputs.top, np.arange(factors.size)
        low[top], high[top] = reader.inputs.low[top] / unseen, reader.inputs.high[top] / unseen
    axis = 1 if reader.dynamic else None
    step = float(np.mean(np.square(high.max(axis) - low.min(axis)))) / _LEVELS**2
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
