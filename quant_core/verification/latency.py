"""Time of one run, float and quantized measured in turn so that both see the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from quant_core.processors.granted import available_processors
from quant_core.spec import Latency
from quant_core.verification.optimized_graph import saving
from quant_core.verification.session import (
    Arrays,
    Model,
    fixed_batch,
    open_session,
    run,
)

FEWEST_PAIRS = 5
"""A median and an interquartile range of fewer pairs would say nothing."""

_PARTS, _BELIEVED = (0.25, 0.25, 0.5), 9
"""Shares of the time after which it may end, and pairs before their spread is believed."""

_DISTURBED, _CALM = 0.1, 10
"""Relative standard error of the ratio above which other work disturbed the runs, and which percentile of them it did
not."""


def measure_latency(
    float_model: Model,
    quantized_model: Model,
    inputs: Arrays,
    *,
    threads: int | None = None,
    pairs: int = 1000,
    seconds: float = 2.0,
    error: float = 0.01,
    warm_up: int = 3,
) -> Latency:
    """Time both models in interleaved pairs.

    Each pair runs both models once, with the order swapped from pair to pair, so that drift of the machine's clock
    and load falls on both alike. One sample is sent unless the graph prescribes a larger batch.

    Args:
        float_model: The float model, or a `timing_session` of it.
        quantized_model: The quantized model, or a `timing_session` of it.
        inputs: Graph input name -> samples, first axis = samples; the first batch is used.
        threads: Threads onnxruntime gets, and what open sessions have; default all cores this process may use.
        pairs: The most timed pairs.
        seconds: No new pair is begun after so many seconds, except to reach `FEWEST_PAIRS`; less of that is enough
            where the ratio is then known.
        error: Relative standard error of the median ratio at which it is known.
        warm_up: Untimed runs of each model beforehand.

    Returns:
        Times and their ratio, as `summarise` gives them.

    Raises:
        ModelError: If onnxruntime cannot load or run one of the models.
        SamplesError: If the inputs do not fit the graph.
    """
    threads = threads or available_processors()
    sessions = [
        timing_session(model, threads) if isinstance(model, Path) else model
        for model in (float_model, quantized_model)
    ]
    batch = max(fixed_batch(session) or 1 for session in sessions)
    runs = [warm_run(session, inputs, batch, warm_up) for session in sessions]
    pairs, times = max(pairs, FEWEST_PAIRS), np.empty((0, len(runs)))
    for share in _PARTS:
        fewest, left = max(0, FEWEST_PAIRS - len(times)), pairs - len(times)
        more = time_in_turn(runs, rounds=left, fewest=fewest, seconds=seconds * share)
        times = np.concatenate([times, more.reshape(-1, len(runs))])
        if len(times) >= min(pairs, _BELIEVED) and _is_known(times, error):
            break
    return summarise(times * 1e3, batch=batch, threads=threads)


def timing_session(
    path: Path, threads: int | None = None, graph: Path | None = None, *, literal: bool = False
) -> ort.InferenceSession:
    """Load a model for a contest with others: between its runs its threads leave the cores to them.

    Args:
        path: The model file.
        threads: Threads within an operator; default all cores this process may use.
        graph: An existing folder to write the optimized graph to.
        literal: Whether to run every node as it is written, without any of onnxruntime's rewrites.

    Returns:
        The session.

    Raises:
        ModelError: If onnxruntime cannot load the file.
    """
    options = ort.SessionOptions()
    # Otherwise the idle threads of one session spin on the cores that the other is being timed on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if graph is not None:
        saving(options, graph)
    return open_session(path, threads=threads, options=options, literal=literal)


def warm_run(session: ort.InferenceSession, inputs: Arrays, batch: int, warm_up: int) -> Callable[[], Any]:
    """Give the function that runs a session once on the first samples, already run a few times.

    Args:
        session: The session.
        inputs: Graph input name -> samples; repeated where there are fewer than the batch.
        batch: Samples a run.
        warm_up: Runs beforehand.

    Returns:
        The function.

    Raises:
        ModelError: If onnxruntime fails while it runs the graph.
        SamplesError: If the inputs do not fit the graph.
    """
    feeds = {i.name: _first(inputs[i.name], batch) for i in session.get_inputs()}
    for _ in range(warm_up):
        run(session, feeds)
    return partial(session.run, None, feeds)


def time_in_turn(
    runs: Sequence[Callable[[], Any]],
    *,
    rounds: int,
    fewest: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> NDArray[np.float64]:
    """Time functions one after another, round after round, so that drift falls on all alike.

    Every round starts with another one, and every second round goes backwards: who runs after whom changes too.

    Args:
        runs: The functions.
        rounds: The most rounds.
        fewest: Rounds that are run however long they take.
        seconds: No new round is begun after so many seconds.
        clock: Gives seconds; `time.thread_time` for functions that stay in this thread, on a machine with other work.

    Returns:
        Seconds `[rounds, functions]`.
    """
    count = len(runs)
    times: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(times) < rounds and (len(times) < fewest or time.perf_counter() < end):
        turn = len(times)
        order = [(turn // 2 + place) % count for place in range(count)]
        spent = [0.0] * count
        for index in order if turn % 2 == 0 else order[::-1]:
            spent[index] = _seconds(runs[index], clock)
        times.append(spent)
    return np.array(times, np.float64)


def summarise(times: NDArray[np.float64], *, batch: int, threads: int) -> Latency:
    """Reduce paired times to a `Latency`.

    Where the machine has more work than cores, most runs wait for a core now and then, and ratios of pairs tell who
    waited: then the least disturbed runs of each model are compared.

    Args:
        times: Milliseconds `[pairs, 2]`, float in the first column and quantized in the second.
        batch: Batch size.
        threads: Threads onnxruntime was given.

    Returns:
        Medians, interquartile ranges and the median of the pairwise ratios; on a busy machine tenth percentiles and
        their ratio.
    """
    known = _is_known(times, _DISTURBED)
    low, high = np.percentile(times, [25, 75], axis=0)
    typical = np.percentile(times, 50 if known else _CALM, axis=0)
    return Latency(
        float=float(typical[0]),
        quantized=float(typical[1]),
        float_spread=float(high[0] - low[0]),
        quantized_spread=float(high[1] - low[1]),
        speedup=float(np.median(times[:, 0] / times[:, 1]) if known else typical[0] / typical[1]),
        batch=batch,
        threads=threads,
        runs=len(times),
    )


def _is_known(times: NDArray[np.float64], error: float) -> bool:
    ratios = times[:, 0] / times[:, 1]
    low, median, high = np.percentile(ratios, [25, 50, 75])
    # Of a normal distribution: sigma = IQR / 1.349, and the median's error is 1.253 times that of the mean.
    return bool(1.253 * (high - low) / 1.349 / np.sqrt(len(ratios)) <= error * median)


def _seconds(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def _first(samples: NDArray[Any], batch: int) -> NDArray[Any]:
    return np.ascontiguousarray(np.take(samples, range(batch), axis=0, mode="wrap"))
