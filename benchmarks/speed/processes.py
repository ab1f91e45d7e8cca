"""One process beside several, on the same probes."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.contestants import Ours
from quant_core.ingest import normalise, read_model
from quant_core.sensitivity.cut import Cut
from quant_core.sensitivity.estimators.gauss_newton import gauss_newton
from quant_core.sensitivity.running.assignment import Assignment
from quant_core.sensitivity.running.workers import OneThread, Workers

_PROBES, _ROUNDS = 16, 3
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, eq=False)
class _Run:
    """One estimate.

    Attributes:
        seconds: How long it took.
        cpu: Processor seconds of this process, then of each process that it started.
        trace: What came.
    """

    seconds: float
    cpu: list[float]
    trace: np.ndarray


def compare_workers(ours: Ours, path: Path, count: int) -> None:
    """Print how long the same probes take in one process, in several, and in one with several threads.

    All images are one batch, so that no rule ends the estimate before the last probe. Beside it stands the machine's
    own limit: as many independent copies of the one process at once, each doing all of the probes, which share
    nothing but caches and memory. On a busy machine the processor seconds tell more: those of the busiest process
    are what the estimate takes where every process has a core for itself.

    Args:
        ours: The network and its samples.
        path: Its ONNX file.
        count: How many processes, or threads.

    Raises:
        RuntimeError: If an estimate ended before its last probe.
    """
    feeds = dict(ours.batch.feeds)
    cut = Cut(ours.batch.size, 1, seed=0, clusters=1)
    batches = cut.batches(feeds, None, "cpu")
    options = {"seed": 0, "tolerance": 1e-9, "max_probes": _PROBES}
    assignment = Assignment(gauss_newton, ours.layers, ours.objective, cut, options)
    model = normalise(read_model(path).model)

    def run(crew: OneThread | Workers) -> _Run:
        # Loaded and warm, as processes are after the first method of an analysis.
        warming = replace(assignment, options=options | {"max_probes": 2 * count})
        with crew.on(warming) as units:
            warming.run(ours.program, batches, run=units)
        before, start = _processor_seconds(), time.perf_counter()
        with crew.on(assignment) as units:
            found = assignment.run(ours.program, batches, run=units)
        seconds, after = time.perf_counter() - start, _processor_seconds()
        if found.probes != _PROBES:
            raise RuntimeError(f"{found.probes} probes instead of {_PROBES}: {found.stopped}")
        return _Run(seconds, [late - early for early, late in zip(before, after, strict=True)], found.trace)

    with ExitStack() as stack:
        workers = stack.enter_context(Workers(model, feeds, None, ["cpu"] * count))
        copies = [stack.enter_context(Workers(model, feeds, None, ["cpu"])) for _ in range(count)]
        threads = stack.enter_context(ThreadPoolExecutor(count))
        rounds = [
            (run(OneThread()), run(workers), max(one.seconds for one in threads.map(run, copies)))
            for _ in range(_ROUNDS)
        ]
    same = all(np.array_equal(one.trace, many.trace) for one, many, _ in rounds)
    torch.set_num_threads(count)
    start = time.perf_counter()
    assignment.run(ours.program, batches)
    threaded = time.perf_counter() - start

    one = float(np.median([one.seconds for one, _, _ in rounds]))
    alone = float(np.median([one.cpu[0] for one, _, _ in rounds]))
    many = float(np.median([many.seconds for _, many, _ in rounds]))
    busiest = float(np.median([max(many.cpu) for _, many, _ in rounds]))
    here = float(np.median([many.cpu[0] for _, many, _ in rounds]))
    limit = float(np.median([copied / count for _, _, copied in rounds]))
    print(
        f"{_PROBES} probes of {batches[0].size} images; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; "
        f"medians of {_ROUNDS} rounds"
        f"\n  one process, one thread        {one:7.2f} s        processor {alone:6.2f} s"
        f"\n  {count} processes, one thread each   {many:7.2f} s  {many / one:4.0%}  "
        f"busiest   {busiest:6.2f} s  {busiest / alone:4.0%}  of which the first process {here:.2f} s"
        f"\n  the machine's own limit        {limit:7.2f} s  {limit / one:4.0%}  ({count} copies of the first line)"
        f"\n  one process, {count} threads         {threaded:7.2f} s  {threaded / one:4.0%}"
        f"\n  identical numbers: {same}"
    )


def _processor_seconds() -> list[float]:
    # Linux: of this process, and of those that its threads have started, in that order.
    found = []
    for task in sorted(Path("/proc/self/task").iterdir(), key=lambda task: int(task.name)):
        for child in (task / "children").read_text().split():
            fields = Path("/proc", child, "stat").read_text().rpartition(")")[2].split()
            found.append((int(fields[11]) + int(fields[12])) / _TICK)
    return [time.process_time(), *found]
