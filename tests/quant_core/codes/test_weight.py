"""What codes stand for, said again one weight at a time."""

import math
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_core.codes import QuantizedWeight
from quant_core.codes.weight import NarrowChannels


def one_by_one(weight):
    """Walk over channels and their blocks in plain Python."""
    shape = weight.codes.shape
    axis = weight.axis
    channels = 1 if axis is None else shape[axis]
    scales = weight.scale.reshape(channels if axis is not None or weight.block_size else 1, -1)
    result = np.empty(shape, dtype=np.float32)
    seen = [0] * channels
    for index in np.ndindex(*shape):
        channel = 0 if axis is None else index[axis]
        block = 0 if weight.block_size is None else seen[channel] // weight.block_size
        seen[channel] += 1
        zero_point = (
            0 if weight.zero_point is None else int(weight.zero_point.reshape(scales.shape)[channel, block])
        )
        result[index] = np.float32(int(weight.codes[index]) - zero_point) * scales[channel, block]
    return result


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.sampled_from(["tensor", "channel", "block"]),
    st.integers(1, 9),
    st.booleans(),
    st.data(),
)
def test_every_weight_is_its_code_less_zero_point_times_its_own_scale(shape, kind, block, symmetric, data):
    axis = None if kind == "tensor" else data.draw(st.integers(0, len(shape) - 1))
    channels = 1 if axis is None else shape[axis]
    count = math.prod(shape) // channels
    scales = {"tensor": (), "channel": (channels,), "block": (channels, -(-count // block))}[kind]
    random = np.random.default_rng(0)
    weight = QuantizedWeight(
        codes=random.integers(-8, 8, shape).astype(np.int8),
        scale=random.random(scales).astype(np.float32) + np.float32(0.1),
        axis=axis,
        bits=4,
        zero_point=None if symmetric else np.asarray(random.integers(-8, 8, scales), dtype=np.int8),
        block_size=block if kind == "block" else None,
    )
    np.testing.assert_array_equal(weight.dequantize(), one_by_one(weight))
    assert weight.suits_int8_kernels == (kind != "block")
    assert replace(weight, bits=8).suits_int8_kernels == (symmetric and kind != "block")


@pytest.mark.parametrize(
    ("name", "dtype", "codes"),
    [
        ("fp8_e4m3", ml_dtypes.float8_e4m3fn, 0x7F),
        ("fp8_e5m2", ml_dtypes.float8_e5m2, 0x7C),
        ("nvfp4", ml_dtypes.float4_e2m1fn, 16),
    ],
)
def test_floating_codes_are_bit_patterns(name, dtype, codes):
    patterns = np.arange(codes, dtype=np.uint8)
    bits = 4 if name == "nvfp4" else 8
    weight = QuantizedWeight(patterns.view(np.int8), np.array(0.5, np.float32), None, bits, format=name)
    expected = np.array([np.uint8(code).view(dtype).astype(np.float32) for code in patterns])
    np.testing.assert_array_equal(weight.dequantize(), expected / 2)


@pytest.mark.parametrize("trellis", [False, True])
def test_limits_are_those_of_each_channels_width(trellis):
    narrow = NarrowChannels(bits=3, channels=np.array([True, False, True]))
    codes = np.zeros((2, 3), dtype=np.int8)
    weight = QuantizedWeight(codes, np.ones(3, np.float32), 1, 4, narrow=narrow, trellis=trellis)
    low, high = (np.broadcast_to(limit, codes.shape)[0].tolist() for limit in weight.code_limits())
    more = 2 if trellis else 1
    assert low == [-4 * more, -8 * more, -4 * more]
    assert high == [4 * more - 1, 8 * more - 1, 4 * more - 1]
    full = weight.in_full()
    assert not full.trellis
    assert (full.bits, full.narrow.bits) == ((5, 4) if trellis else (4, 3))
    for limit, same in zip(weight.code_limits(), full.code_limits(), strict=True):
        np.testing.assert_array_equal(limit, same)
