"""How good are files of one size by several tools? `python -m benchmarks.accuracy_size [TASK ...] [--write]`.

Every tool gets the same float model and the same calibration samples; onnxruntime runs all files on samples that no
tool saw. Ours are made at the bytes of the others. Files are kept, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.accuracy_tasks import TASKS, Found, Task
from benchmarks.latency import Timed, measure
from benchmarks.peers.made import Contestant, Made, make, results_folder
from benchmarks.peers.section import PAGE, table, write_section

STATIC, W4A8 = "onnxruntime static int8", "onnxruntime w4a8"
AT_INT8, AT_W4A8, AT_HALF = "at the bytes of int8", "at the bytes of w4a8", "at half the bytes of int8"


def peers(task: Task) -> list[Contestant]:
    """Name the other tools' files.

    Args:
        task: The task.

    Returns:
        The contestants.
    """
    return [
        Contestant(STATIC, "static"),
        Contestant("onnxruntime dynamic int8", "dynamic"),
        Contestant(W4A8, "static", {"weights": "S4"}),
        *([Contestant("onnxruntime MatMulNBits, 4 bits", "nbits")] if task.transformer else []),
        Contestant("NNCF int8", "nncf", {"transformer": task.transformer}),
        Contestant("AIMET int8", "aimet"),
        Contestant("AIMET, 4-bit weights", "aimet", {"weights": "int4"}),
        *task.others,
    ]


def ours(task: Task, made: Sequence[Made]) -> list[Contestant]:
    """Name our files: at the bytes of the others, and those that the task asks for.

    Args:
        task: The task.
        made: The others' files.

    Returns:
        The contestants.
    """
    sizes = {file.contestant.name: file.bytes for file in made if file.path is not None}
    wanted: dict[str, dict[str, object]] = {}
    if STATIC in sizes:
        wanted |= {AT_INT8: {"size": sizes[STATIC]}, AT_HALF: {"size": sizes[STATIC] // 2}}
    if W4A8 in sizes:
        wanted[AT_W4A8] = {"size": sizes[W4A8]}
    wanted |= {name: dict(request) for name, request in task.extra.items()}
    return [Contestant(f"Bitwright {name}", "ours", request) for name, request in wanted.items()]


@dataclass(frozen=True, eq=False)
class Row:
    """One file in the table.

    Attributes:
        made: The file.
        found: How it does.
    """

    made: Made
    found: Found


def tell(task: Task, base: Found, rows: Sequence[Row], timed: Timed, failed: Sequence[Made]) -> str:
    """Write what was found about one task.

    Args:
        task: The task.
        base: The float file against itself.
        rows: The files.
        timed: Their times, behind the float file's.
        failed: Tools that made no file.

    Returns:
        A heading, a table, what the goals say, and what failed.
    """
    head = ["", "bytes", task.metric, *task.more, "SQNR, dB", "times faster than float", "CPU s to make"]
    cells = [
        ["float", f"{task.model.stat().st_size:,}", task.form.format(base.metric), *_more(base), "", "", ""]
    ]
    for n, row in enumerate(rows, 1):
        cells.append(
            [
                row.made.contestant.name,
                f"{row.made.bytes:,}",
                task.form.format(row.found.metric),
                *_more(row.found),
                f"{row.found.sqnr_db:.1f}",
                f"{timed.ratio(0, n):.2f}",
                f"{row.made.cpu_seconds:.0f}",
            ]
        )
    text = f"### {task.title}\n\n{table(head, cells)}\n"
    if goals := _goals(rows):
        text += "\n" + "\n".join(f"- {goal}" for goal in goals) + "\n"
    for made in failed:
        text += f"\n{made.contestant.name} made no file: {made.failure[:200]}\n"
    return text


def _more(found: Found) -> list[str]:
    return [f"{value:.1f}" for value in found.more.values()]


def _goals(rows: Sequence[Row]) -> list[str]:
    """Hold ours against the best of onnxruntime's own files of that kind."""
    by_name = {row.made.contestant.name: row.found for row in rows}
    theirs = {name: found for name, found in by_name.items() if name.startswith("onnxruntime")}
    goals = []
    for ours_name, kind, least in ((AT_W4A8, "w4a8", 6.0), (AT_INT8, "int8", 1.0)):
        mine = by_name.get(f"Bitwright {ours_name}")
        others = {name: found.sqnr_db for name, found in theirs.items() if name.endswith(f" {kind}")}
        if mine is not None and others:
            best = max(others, key=lambda name: others[name])
            more = mine.sqnr_db - others[best]
            verdict = "reached" if more >= least else "**not reached**"
            goals.append(f"{ours_name}: {more:+.1f} dB over {best}; {least:.0f} dB more is {verdict}")
    return goals


def main() -> None:
    """Make the files, judge them, print and perhaps write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy_size", description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"any of {', '.join(TASKS)}; default all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing for each task")
    parser.add_argument("--without", metavar="GLOB", default="", help="contestants to leave out, by name")
    parser.add_argument(
        "--again", metavar="GLOB", default="", help="contestants whose kept files are made again"
    )
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    given = parser.parse_args()
    if unknown := sorted(set(given.tasks) - set(TASKS)):
        parser.error(f"unknown task {', '.join(unknown)}; choose from {', '.join(TASKS)}")
    parts = []
    for name in given.tasks or TASKS:
        kept = results_folder("accuracy_size") / name
        task = TASKS[name](kept)
        made: list[Made] = []
        for more in (lambda task, _: peers(task), ours):
            for contestant in more(task, made):
                if fnmatch.fnmatch(contestant.name, given.without):
                    continue
                again = fnmatch.fnmatch(contestant.name, given.again)
                made.append(make(contestant, task.model, task.samples, kept, again=again))
                print(
                    f"{name}: {contestant.name}: {made[-1].failure or f'{made[-1].bytes:,} bytes'}",
                    flush=True,
                )
        reference = task.outputs(task.model, given.threads)
        failed = [file for file in made if file.path is None]
        rows = [
            Row(file, task.find(file.path, reference, given.threads))
            for file in made
            if file.path is not None
        ]
        paths = [task.model, *(row.made.path for row in rows if row.made.path is not None)]
        timed = measure(paths, task.samples, 1, given.threads, given.seconds)
        more = {name: judge(reference, reference) for name, judge in task.more.items()}
        base = Found(task.judge(reference, reference), 0.0, more)
        parts.append(tell(task, base, rows, timed, failed))
        print(parts[-1], flush=True)
    if given.write:
        write_section(PAGE, "accuracy and size", "\n".join(parts))


if __name__ == "__main__":
    main()
