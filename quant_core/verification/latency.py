"""Time of one run, float and quantized measured in turn so that both see the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from quant_core.spec import Latency
from quant_core.verification.session import Arrays, available_threads, fixed_batch, open_session, run

FEWEST_PAIRS = 5
"""A median and an interquartile range of fewer pairs would say nothing."""


def measure_latency(
    float_path: Path,
    quantized_path: Path,
    inputs: Arrays,
    *,
    threads: int | None = None,
    pairs: int = 1000,
    seconds: float = 3.0,
    warm_up: int = 3,
) -> Latency:
    """Time both models in interleaved pairs.

    Each pair runs both models once, with the order swapped from pair to pair, so that drift of the machine's clock
    and load falls on both alike. One sample is sent unless the graph prescribes a larger batch.

    Args:
        float_path: The float model.
        quantized_path: The quantized model.
        inputs: Graph input name -> samples, first axis = samples; the first batch is used.
        threads: Threads onnxruntime gets; default all cores this process may use.
        pairs: The most timed pairs.
        seconds: No new pair is begun after so many seconds, except to reach `FEWEST_PAIRS`.
        warm_up: Untimed runs of each model beforehand.

    Returns:
        Medians, interquartile ranges and the median of the pairwise ratios.

    Raises:
        ModelError: If onnxruntime cannot load or run one of the models.
        SamplesError: If the inputs do not fit the graph.
    """
    threads = threads or available_threads()
    sessions = [_timing_session(path, threads) for path in (float_path, quantized_path)]
    batch = max(fixed_batch(session) or 1 for session in sessions)
    runs: list[Callable[[], Any]] = []
    for session in sessions:
        feeds = {i.name: _first(inputs[i.name], batch) for i in session.get_inputs()}
        for _ in range(warm_up):
            run(session, feeds)
        runs.append(partial(session.run, None, feeds))
    times = _time_pairs(runs[0], runs[1], pairs=max(pairs, FEWEST_PAIRS), seconds=seconds)
    return summarise(times * 1e3, batch=batch, threads=threads)


def summarise(times: NDArray[np.float64], *, batch: int, threads: int) -> Latency:
    """Reduce paired times to a `Latency`.

    Args:
        times: Milliseconds `[pairs, 2]`, float in the first column and quantized in the second.
        batch: Batch size.
        threads: Threads onnxruntime was given.

    Returns:
        Medians, interquartile ranges and the median of the pairwise ratios.
    """
    low, median, high = np.percentile(times, [25, 50, 75], axis=0)
    return Latency(
        float=float(median[0]),
        quantized=float(median[1]),
        float_spread=float(high[0] - low[0]),
        quantized_spread=float(high[1] - low[1]),
        speedup=float(np.median(times[:, 0] / times[:, 1])),
        batch=batch,
        threads=threads,
        runs=len(times),
    )


def _time_pairs(
    first: Callable[[], Any], second: Callable[[], Any], *, pairs: int, seconds: float
) -> NDArray[np.float64]:
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(times) < pairs and (len(times) < FEWEST_PAIRS or time.perf_counter() < end):
        swapped = len(times) % 2 == 1
        one, other = (second, first) if swapped else (first, second)
        pair = (_seconds(one), _seconds(other))
        times.append((pair[1], pair[0]) if swapped else pair)
    return np.array(times, np.float64)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _timing_session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # Otherwise the idle threads of one session spin on the cores that the other is being timed on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return open_session(path, threads=threads, options=options)


def _first(samples: NDArray[Any], batch: int) -> NDArray[Any]:
    return np.ascontiguousarray(np.take(samples, range(batch), axis=0, mode="wrap"))
