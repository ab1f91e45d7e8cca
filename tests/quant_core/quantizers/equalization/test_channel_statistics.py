"""What channels held, sample by sample, and run by run where samples are not told apart."""

import numpy as np
import onnx_ir as ir

from quant_core.calibration import Samples
from quant_core.executor import compile_model
from quant_core.ingest import normalise
from quant_core.quantizers.equalization.channel_statistics import ChannelStatistics, channel_statistics
from tests.networks import network


def test_a_run_is_one_sample_where_the_first_axis_counts_something_else():
    text = "g (float[n,5,3] x) => (float[5,n,3] y) { y = Transpose<perm=[1,0,2]>(x) }"
    program = compile_model(normalise(ir.from_proto(network(text))))
    x = np.random.default_rng(0).standard_normal((7, 5, 3)).astype(np.float32)
    found = channel_statistics(program, {"x": 2, "y": 2}, Samples(inputs={"x": x}), batch_size=4)
    samples, runs = found["x"], found["y"]
    assert (samples.low.shape, runs.low.shape) == ((7, 3), (2, 3))
    np.testing.assert_allclose(samples.low, np.minimum(x.min(1), 0))
    for part, rows in enumerate((x[:4], x[4:])):
        np.testing.assert_allclose(runs.high[part], np.maximum(rows.max((0, 1)), 0))
        np.testing.assert_allclose(runs.squares[part], np.square(rows).mean((0, 1)), rtol=1e-6)


def test_each_channel_loses_the_sample_that_reaches_furthest_but_never_the_only_one():
    low = np.array([[-1.0, -9.0], [-2.0, 0.0], [0.0, -3.0]])
    high = np.array([[5.0, 1.0], [1.0, 2.0], [4.0, 3.0]])
    whole = ChannelStatistics(low, high, high**2)
    rest = whole.without_top()
    np.testing.assert_array_equal(rest.low, [[-2, 0], [0, -3]])
    np.testing.assert_array_equal(rest.high, [[1, 2], [4, 3]])
    np.testing.assert_array_equal(rest.squares, [[1, 4], [16, 9]])
    one = ChannelStatistics(low[:1], high[:1], high[:1] ** 2)
    assert one.without_top() is one
