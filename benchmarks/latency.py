"""How fast are the files of several tools? `python -m benchmarks.latency [NET ...] [--sides SIDE ...] [--write]`.

Every tool makes its files of the same float model; onnxruntime runs all of them in turn, round after round, in one
process. What counts are the ratios inside a round: other work on the machine falls on all alike. With one thread the
processor's time of that thread is taken, in which others do not show. `--sides` asks how proportions change with the
side of the image, in one table for each net named. `--write` puts the tables into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.latency_nets import NETS, Net, prepare
from benchmarks.latency_rows import tell_rows
from benchmarks.peers.made import Contestant, Made, make, results_folder
from benchmarks.peers.section import PAGE, table, write_section
from benchmarks.peers.tools import samples_of
from quant_core.processors.granted import available_processors
from quant_core.verification.latency import time_in_turn, timing_session, warm_run

OURS_4 = "Bitwright, 4 bits on average"
W4A8 = "onnxruntime static, U8 x S4"
BATCHES = (1, 8)
LEAST_TIMES = 8
"""How many times as long its w4a8 file of ResNet-18 is to take, at least."""

_FEWEST = 15
_PRODUCT = "product"
_QUICK = {"rounding": "nearest", "workers": 1}
"""Codes do not change speed, so ours are made the quick way."""


def contestants(net: Net) -> list[Contestant]:
    """Name the files that are made of a net.

    Args:
        net: The net.

    Returns:
        The contestants.
    """
    static = [
        Contestant("onnxruntime static, U8 x S8 per channel", "static", {"count": 8}, int8=True),
        Contestant(
            "onnxruntime static, U8 x S8 per tensor", "static", {"count": 8, "per_channel": False}, int8=True
        ),
        Contestant("onnxruntime static, S8 x S8", "static", {"count": 8, "activations": "S8"}, int8=True),
        Contestant(
            "onnxruntime static, U8 x U8, QOperator",
            "static",
            {"count": 8, "weights": "U8", "qdq": False, "per_channel": False},
            int8=True,
        ),
        Contestant("onnxruntime dynamic, S8 per channel", "dynamic", int8=True),
        Contestant(W4A8, "static", {"count": 8, "weights": "S4"}),
    ]
    if net.transformer is not None:
        heads, width = net.transformer
        static += [
            Contestant(
                "onnxruntime dynamic, U8 per tensor",
                "dynamic",
                {"weights": "U8", "per_channel": False},
                int8=True,
            ),
            Contestant(
                "onnxruntime fused, then dynamic S8",
                "fused_dynamic",
                {"heads": heads, "width": width},
                int8=True,
            ),
            Contestant("onnxruntime MatMulNBits, 4 bits", "nbits"),
            Contestant("onnxruntime 4-bit DequantizeLinear", "nbits", {"qdq": True}),
        ]
    transformer = net.transformer is not None
    return [
        *static,
        Contestant("NNCF, 8 bits", "nncf", {"count": 8, "transformer": transformer}),
        Contestant("AIMET, 8 bits", "aimet", {"count": 8}),
        Contestant("Bitwright, 8 bits", "ours", {**_QUICK, "bits": [8], "effective_bits": 8}),
        Contestant(OURS_4, "ours", {**_QUICK, "effective_bits": 4}),
    ]


@dataclass(frozen=True, eq=False)
class Timed:
    """Times of all files of a net at one batch size.

    Attributes:
        batch: Samples a run.
        times: Milliseconds [rounds, files], the float model first.
    """

    batch: int
    times: npt.NDArray[np.float64]

    def ratio(self, one: int, other: int) -> float:
        """Give the median over rounds of how much longer one file takes than another."""
        return float(np.median(self.times[:, one] / self.times[:, other]))


def measure(paths: Sequence[Path], samples: Path, batch: int, threads: int, seconds: float) -> Timed:
    """Run files in turn.

    Args:
        paths: The files.
        samples: The sample file.
        batch: Samples a run.
        threads: Threads of onnxruntime.
        seconds: No round is begun after so many seconds.

    Returns:
        The times.
    """
    inputs = samples_of(samples)
    clock = time.thread_time if threads == 1 else time.perf_counter
    runs = [warm_run(timing_session(path, threads), inputs, batch, 3) for path in paths]
    return Timed(batch, 1e3 * time_in_turn(runs, rounds=500, fewest=_FEWEST, seconds=seconds, clock=clock))


def fastest_int8(files: Sequence[Made], timed: Timed) -> int:
    """Find the fastest int8 file of onnxruntime's tools.

    Args:
        files: The files, without the float model.
        timed: Their times, behind the float model's.

    Returns:
        Its column.
    """
    return min(
        (n for n, made in enumerate(files, 1) if made.contestant.int8),
        key=lambda n: float(np.median(timed.times[:, n])),
    )


def tell(net: Net, model: Path, files: Sequence[Made], all_timed: Sequence[Timed], threads: int) -> str:
    """Write what was found about one net.

    Args:
        net: The net.
        model: Its float file.
        files: The files that were made and timed.
        all_timed: Their times at each batch size.
        threads: Threads they had.

    Returns:
        A heading, a table and what the goals say.
    """
    head = ["", "bytes"]
    for timed in all_timed:
        head += [f"batch {timed.batch}, ms", "spread", "against the fastest int8"]
    rows, goals = [], []
    for n, name in enumerate(["float", *(made.contestant.name for made in files)]):
        row = [name, f"{model.stat().st_size if n == 0 else files[n - 1].bytes:,}"]
        for timed in all_timed:
            low, median, high = np.percentile(timed.times[:, n], [25, 50, 75])
            best = fastest_int8(files, timed)
            row += [f"{median:.2f}", f"{high - low:.2f}", f"{timed.ratio(n, best):.2f}"]
        rows.append(row)
    names = [made.contestant.name for made in files]
    for timed in all_timed:
        ours, best = names.index(OURS_4) + 1, fastest_int8(files, timed)
        ratio = timed.ratio(ours, best)
        goals.append(
            f"- Batch {timed.batch}: 4 bits on average take {ratio:.2f} of onnxruntime's fastest int8 file "
            f"({names[best - 1]}); at most 1.05 is {'reached' if ratio <= 1.05 else '**not reached**'}."
        )
        if W4A8 in names:
            times = timed.ratio(names.index(W4A8) + 1, ours)
            verdict = f"; {LEAST_TIMES} is {'reached' if times >= LEAST_TIMES else '**not reached**'}"
            goals.append(
                f"- Batch {timed.batch}: its w4a8 takes {times:.1f} times as long as ours"
                f"{verdict if net.title.startswith('ResNet-18') else ''}."
            )
    rounds = ", ".join(f"{len(t.times)} rounds at batch {t.batch}" for t in all_timed)
    clock = "one thread, its processor time" if threads == 1 else f"{threads} threads"
    return f"### {net.title}\n\n{clock}; {rounds}.\n\n{table(head, rows)}\n\n{chr(10).join(goals)}\n"


SIDED = ("onnxruntime static, U8 x S8 per channel", W4A8, OURS_4)
"""What is compared at several sides of the image: its int8, its w4a8, ours."""


def tell_sides(name: str, sides: Sequence[int], threads: int, seconds: float) -> str:
    """Compare float, int8 and w4a8 at several sides of the image.

    Args:
        name: One of `NETS` that takes images.
        sides: Pixels of a side.
        threads: Threads of onnxruntime.
        seconds: Of timing for each side.

    Returns:
        A heading and a table, one row a side, times of one image.
    """
    rows = []
    for side in sides:
        net = replace(NETS[name], side=side)
        kept = results_folder("latency") / (name if side == NETS[name].side else f"{name}-{side}")
        model, samples = prepare(net, kept)
        made = [make(each, model, samples, kept) for each in contestants(net) if each.name in SIDED]
        paths = [model, *(file.path for file in made if file.path is not None)]
        timed = measure(paths, samples, 1, threads, seconds)
        rows.append(
            [f"{side} x {side}"]
            + [f"{ms:.2f}" for ms in np.median(timed.times, axis=0)]
            + [f"{timed.ratio(*pair):.2f}" for pair in ((0, 1), (2, 0), (2, 1), (2, 3), (3, 1))]
        )
        print(*rows[-1], flush=True)
    head = ["image", "float, ms", "int8", "w4a8", "ours, 4 bits"]
    head += ["float / int8", "w4a8 / float", "w4a8 / int8", "w4a8 / ours", "ours / int8"]
    clock = "one thread, its processor time" if threads == 1 else f"{threads} threads"
    return f"### {name} at several sides of the image\n\n{clock}, one image a run.\n\n{table(head, rows)}\n"


def main() -> None:
    """Make the files, time them, print and perhaps write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument(
        "nets", nargs="*", metavar="NET", help=f"any of {', '.join([*NETS, _PRODUCT])}; default all"
    )
    parser.add_argument("--threads", type=int, default=available_processors())
    parser.add_argument("--seconds", type=float, default=40.0, help="of timing for each net and batch size")
    parser.add_argument("--only", metavar="GLOB", default="*", help="contestants to take, by name")
    parser.add_argument(
        "--again", metavar="GLOB", default="", help="contestants whose kept files are made again"
    )
    parser.add_argument(
        "--sides",
        type=int,
        nargs="+",
        metavar="SIDE",
        help="pixels of an image's side; in place of the tables",
    )
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    given = parser.parse_args()
    known = [*NETS, _PRODUCT]
    if unknown := sorted(set(given.nets) - set(known)):
        parser.error(f"unknown net {', '.join(unknown)}; choose from {', '.join(known)}")
    if given.sides:
        if given.write or not given.nets or any(n == _PRODUCT or NETS[n].transformer for n in given.nets):
            parser.error("--sides takes nets of images by name, and is printed alone")
        for name in given.nets:
            print(tell_sides(name, given.sides, given.threads, given.seconds))
        return
    parts = []
    for name in given.nets or known:
        if name == _PRODUCT:
            folder = results_folder("latency") / name
            parts.append(tell_rows(folder, given.threads, given.seconds))
            print(parts[-1], flush=True)
            continue
        kept = results_folder("latency") / name
        model, samples = prepare(NETS[name], kept)
        files = []
        for contestant in contestants(NETS[name]):
            if not fnmatch.fnmatch(contestant.name, given.only):
                continue
            made = make(contestant, model, samples, kept, again=fnmatch.fnmatch(contestant.name, given.again))
            print(f"{name}: {contestant.name}: {made.failure or f'{made.bytes:,} bytes'}", flush=True)
            if made.path is not None:
                files.append(made)
        paths = [model, *(made.path for made in files if made.path is not None)]
        timed = [measure(paths, samples, batch, given.threads, given.seconds) for batch in BATCHES]
        parts.append(tell(NETS[name], model, files, timed, given.threads))
        print(parts[-1], flush=True)
    if given.write:
        write_section(PAGE, "latency", "\n".join(parts))


if __name__ == "__main__":
    main()
