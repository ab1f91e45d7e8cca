"""Time of each layer inside a run, from onnxruntime's own profile."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from quant_core.ingest.layer import Layer
from quant_core.processors.granted import available_processors
from quant_core.verification.optimized_graph import layer_nodes
from quant_core.verification.session import Arrays, fixed_batch, open_session, run

_KERNEL = "_kernel_time"


@dataclass(frozen=True, eq=False)
class NodeTimes:
    """Times of one model file.

    Attributes:
        layers: Layer name -> milliseconds in each run.
        rest: Milliseconds of everything else in each run.
        batch: Samples a run.
        threads: Threads onnxruntime was given.
    """

    layers: Mapping[str, NDArray[np.float64]]
    rest: NDArray[np.float64]
    batch: int
    threads: int


def node_times(
    paths: Sequence[Path], layers: Sequence[Layer], inputs: Arrays, *, runs: int, warm_up: int = 5
) -> list[NodeTimes]:
    """Profile several forms of one model in turn, so that drift of the machine falls on all alike.

    Args:
        paths: Model files whose nodes carry the names that the layers know.
        layers: The layers.
        inputs: Graph input name -> samples; the first batch is used.
        runs: Timed runs of each.
        warm_up: Runs of each beforehand.

    Returns:
        Times of each file. A layer whose node onnxruntime merged beyond recognition has 0; its time is in the rest.
    """
    threads = available_processors()
    with tempfile.TemporaryDirectory() as folder:
        sessions = [_open(path, threads, Path(folder) / str(i)) for i, path in enumerate(paths)]
        batch = max(fixed_batch(session) or 1 for session in sessions)
        first = {
            name: np.ascontiguousarray(np.take(a, range(batch), axis=0, mode="wrap"))
            for name, a in inputs.items()
        }
        for _ in range(warm_up + runs):
            for session in sessions:
                run(session, {i.name: first[i.name] for i in session.get_inputs()})
        found = []
        for session, path in zip(sessions, paths, strict=True):
            times = _read(Path(session.end_profiling()), warm_up, runs)
            found.append(_by_layer(times, layer_nodes(path, layers), runs, batch, threads))
        return found


def _open(path: Path, threads: int, profile: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(profile)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return open_session(path, threads=threads, options=options)


def _read(path: Path, warm_up: int, runs: int) -> dict[str, NDArray[np.float64]]:
    events: list[dict[str, Any]] = json.loads(path.read_text())
    spent: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            spent[event["name"].removesuffix(_KERNEL)].append(event["dur"] / 1e3)
    # A node inside a loop runs several times a run.
    return {
        name: np.array(times).reshape(warm_up + runs, -1).sum(axis=1)[warm_up:]
        for name, times in spent.items()
        if len(times) % (warm_up + runs) == 0
    }


def _by_layer(
    times: Mapping[str, NDArray[np.float64]],
    nodes: Mapping[str, tuple[str, ...]],
    runs: int,
    batch: int,
    threads: int,
) -> NodeTimes:
    zero = np.zeros(runs)
    # Both weights of a recurrent node have half of its time.
    claims = Counter(name for names in nodes.values() for name in names)
    return NodeTimes(
        layers={
            layer: sum((times.get(name, zero) / claims[name] for name in names), zero)
            for layer, names in nodes.items()
        },
        rest=sum((spent for name, spent in times.items() if name not in claims), zero),
        batch=batch,
        threads=threads,
    )
