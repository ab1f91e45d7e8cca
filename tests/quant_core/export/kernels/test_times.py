"""Times of kernels against those that were measured, as ratios of float to integers."""

from dataclasses import replace

import pytest

from quant_core.export.kernels.times import dynamic_time, float_time, integer_time, product_time
from quant_core.ingest import Layer

# Inputs, outputs, kernel, side, groups, stride, measured time in float by time in integers: medians of one thread of a
# processor with AVX-512 VNNI, onnxruntime 1.31.
MEASURED = [
    (128, 128, 1, 14, 1, 1, 2.62),
    (16, 16, 1, 112, 1, 1, 0.93),
    (64, 64, 1, 112, 1, 1, 3.04),
    (960, 160, 1, 14, 1, 1, 3.68),
    (16, 16, 3, 56, 1, 1, 1.33),
    (64, 64, 3, 14, 1, 1, 2.77),
    (256, 256, 3, 14, 1, 1, 4.93),
    (16, 16, 3, 112, 16, 1, 0.30),
    (8, 8, 5, 112, 8, 1, 0.12),
    (128, 128, 3, 14, 128, 1, 0.81),
    (240, 240, 5, 14, 240, 1, 0.80),
    (3, 32, 3, 112, 1, 2, 0.39),
    (64, 64, 3, 56, 4, 1, 0.68),
]


def convolution(inputs, outputs, kernel, side, groups=1, stride=1):
    out = -(-side // stride)
    shape = (outputs, inputs // groups, kernel, kernel)
    written = outputs * out * out
    return Layer(
        "layer", "Conv", "w", shape, 0, (), group=groups, macs=written * shape[1] * kernel**2,
        input_elements=inputs * side * side, output_elements=written,
    )  # fmt: skip


@pytest.mark.parametrize("case", MEASURED, ids=str)
def test_ratios_are_those_measured_within_two(case):
    *shape, measured = case
    layer = convolution(*shape)
    assert 0.5 < float_time(layer) / integer_time(layer) / measured < 2


@pytest.mark.parametrize(
    ("case", "measured"),
    [((64, 12, 3, 28), 1.35), ((64, 8, 3, 28), 1.3), ((16, 8, 3, 56), 1.44), ((32, 4, 5, 28), 1.29)],
)
def test_fewer_outputs_than_the_direct_kernel_has_take_longer_than_its_sixteen(case, measured):
    inputs, _, *rest = case
    direct = integer_time(convolution(inputs, 16, *rest))
    assert 0.75 < integer_time(convolution(*case)) / direct / measured < 1.1


def test_groups_that_fill_no_blocks_are_slow_in_float():
    assert float_time(convolution(64, 64, 3, 28, 8)) > float_time(convolution(64, 64, 3, 28, 4))


@pytest.mark.parametrize(
    ("channels", "kernel", "side", "measured"),
    [(64, 3, 10, 1.45), (128, 3, 8, 1.04), (96, 1, 8, 1.13), (128, 1, 16, 1.14), (16, 5, 16, 1.53)],
)
def test_along_one_axis_float_kernels_take_little_longer_for_each_product(channels, kernel, side, measured):
    """Against 3 x 3, or 1 x 1, on as many places; one thread of an AMD EPYC with AVX-512."""
    plane = convolution(channels, channels, min(kernel, 3), side)
    line = replace(plane, shape=(channels, channels, kernel), macs=channels * plane.output_elements * kernel)
    ratio = (float_time(line) / line.macs) / (float_time(plane) / plane.macs)
    assert 0.75 < ratio / measured < 1.5


@pytest.mark.parametrize(
    ("channels", "kernel", "places", "measured"),
    [(128, 3, 2, 1.05), (128, 3, 16, 1.0), (128, 3, 17, 1.57), (128, 3, 64, 2.98), (256, 1, 4, 0.97)],
)
def test_along_one_axis_float_kernels_compute_sixteen_places_at_a_time(channels, kernel, places, measured):
    """Against four places, or sixteen; one thread of an AMD EPYC with AVX-512."""

    def time(places):
        written = channels * places
        line = Layer(
            "layer", "Conv", "w", (channels, channels, kernel), 0, (), macs=written * channels * kernel
        )
        return float_time(replace(line, input_elements=written, output_elements=written), near=True)

    assert 0.8 < time(places) / time(4 if kernel > 1 else 16) / measured < 1.5


def product(rows, inputs, outputs):
    return Layer(
        "layer", "MatMul", "w", (inputs, outputs), 1, (), macs=rows * inputs * outputs,
        input_elements=rows * inputs, output_elements=rows * outputs,
    )  # fmt: skip


def test_products_of_few_columns_are_faster_in_float():
    wide, narrow = product(128, 384, 1536), product(3136, 32, 32)
    assert dynamic_time(wide) < float_time(wide) / 2
    assert dynamic_time(narrow) > float_time(narrow)


def test_factors_of_few_channels_take_long_where_channels_lie_last():
    assert product_time(12 * 100, 12, last=True) > 3 * product_time(12 * 100, 12, last=False)


def test_convolutions_along_one_axis_are_slow_in_float():
    line = Layer(
        "layer",
        "Conv",
        "w",
        (64, 64, 3),
        0,
        (),
        macs=64 * 64 * 3 * 100,
        input_elements=6400,
        output_elements=6400,
    )
    assert (
        0.5 < float_time(line) / integer_time(line) / 4.7 < 2
    )  # measured 51.4 and 11 microseconds, calls aside


def test_weights_of_small_files_are_fetched_from_near():
    assert float_time(product(1, 256, 256), near=True) < 0.6 * float_time(product(1, 256, 256))
    assert float_time(product(128, 256, 256), near=True) == float_time(product(128, 256, 256))
