from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest

from quant_core.errors import ModelError
from quant_core.verification import measure_latency
from quant_core.verification.latency import FEWEST_PAIRS, summarise, time_in_turn, timing_session
from quant_core.verification.optimized_graph import read_saved


@pytest.fixture
def chain(new_graph):
    return partial(_chain, new_graph)


def _chain(new_graph, path, depth, batch):
    graph = new_graph()
    graph.constant("w", graph.random.standard_normal((256, 256)) / 16)
    tensor = "x"
    for k in range(depth):
        tensor = graph.node("MatMul", [tensor, "w"], f"t{k}" if k < depth - 1 else "y")
    return graph.save(path, {"x": [batch, 256]}, {"y": [batch, 256]})


def test_eight_times_the_work_takes_longer_both_ways_round(tmp_path, chain):
    short, long = chain(tmp_path / "short.onnx", 4, "N"), chain(tmp_path / "long.onnx", 32, "N")
    samples = {"x": np.ones((64, 256), np.float32)}
    slower = measure_latency(short, long, samples, threads=1, pairs=20)
    faster = measure_latency(long, short, samples, threads=1, pairs=20)
    assert slower.speedup < 1 < faster.speedup
    assert slower.float_ < slower.quantized
    assert (slower.batch, slower.threads, slower.runs) == (1, 1, 20)


def test_a_prescribed_batch_is_filled_and_time_limits_the_pairs(tmp_path, chain):
    path = chain(tmp_path / "m.onnx", 1, 8)
    latency = measure_latency(path, path, {"x": np.ones((3, 256), np.float32)}, threads=1, seconds=0.0)
    assert latency.batch == 8
    assert latency.runs == FEWEST_PAIRS


def test_summary_of_known_times():
    times = np.array([[4.0, 1.0], [6.0, 1.5], [8.0, 2.0], [10.0, 2.5], [15.0, 3.0]])
    latency = summarise(times, batch=1, threads=2)
    assert (latency.float_, latency.quantized) == (8.0, 2.0)
    assert (latency.float_spread, latency.quantized_spread) == (4.0, 1.0)
    assert latency.speedup == 4.0


@pytest.mark.parametrize("near", [True, False])
def test_a_ratio_is_known_where_the_error_of_its_median_is_below_a_tenth(near):
    """The median of n normal values is off by sqrt(pi / 2) sigma / sqrt(n), sigma by quartiles 1.349 apart."""
    allowed = 0.1 * 4 / np.sqrt(np.pi / 2) * np.sqrt(5) * 1.349
    spread = allowed * (0.995 if near else 1.005) / 2
    ratios = np.array([0.5, 4 - spread, 4, 4 + spread, 9])
    latency = summarise(np.stack([ratios, np.ones(5)], axis=1), batch=1, threads=1)
    assert latency.speedup == (4 if near else pytest.approx(np.percentile(ratios, 10)))


def test_runs_that_wait_for_a_core_do_not_tell_the_speed():
    random = np.random.default_rng(1)
    for _ in range(20):
        waits = 30 * random.random((18, 2)) * (random.random((18, 2)) < 0.6)
        times = np.array([1.5, 1.0]) * random.normal(1, 0.03, (18, 2)) + waits
        latency = summarise(times, batch=1, threads=2)
        assert latency.speedup == pytest.approx(1.5, rel=0.15)
        assert latency.float_ / latency.quantized == pytest.approx(latency.speedup)


def test_a_missing_model_is_named(tmp_path, chain):
    path = chain(tmp_path / "m.onnx", 1, "N")
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        measure_latency(path, tmp_path / "absent.onnx", {"x": np.ones((1, 256), np.float32)})


def test_functions_in_turn_each_run_once_a_round_and_change_places():
    order = []
    times = time_in_turn([partial(order.append, n) for n in range(3)], rounds=6, fewest=1, seconds=60.0)
    assert times.shape == (6, 3)
    rounds = [tuple(order[at : at + 3]) for at in range(0, 18, 3)]
    assert set(rounds) == set(itertools.permutations(range(3)))
    assert all(one[0] != following[0] for one, following in itertools.pairwise(rounds))


def test_without_seconds_only_the_fewest_rounds_are_run():
    calls = []
    assert len(time_in_turn([partial(calls.append, 0)], rounds=9, fewest=4, seconds=0.0)) == len(calls) == 4


def test_a_session_writes_the_graph_it_runs(tmp_path, chain):
    path, folder = chain(tmp_path / "m.onnx", 3, "N"), tmp_path / "graph"
    folder.mkdir()
    timing_session(path, 1)
    assert not list(folder.iterdir())
    timing_session(path, 1, folder)
    assert [node.op_type for node in read_saved(folder).graph.node] == ["MatMul"] * 3
