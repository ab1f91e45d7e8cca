"""The zoo's models at the bytes of onnxruntime's int8: `python -m benchmarks.zoo_files NAME ...`.

For each model with samples, one row a file: onnxruntime's static and dynamic int8, and ours within the bytes of the
smaller of them. Half of the samples, at most 32, make the files; up to 16 others judge them, output by output. Files
are timed in turn with the float model, one sample a run, one thread's processor time. Files are kept.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from benchmarks.latency import measure
from benchmarks.peers.made import Contestant, Made, make, results_folder
from benchmarks.peers.tools import Arrays, batch_of, batches, samples_of
from benchmarks.zoo import prepare
from benchmarks.zoo_check import MODELS
from quant_core.verification.differences import Difference

THEIRS = (Contestant("onnxruntime static int8", "static"), Contestant("onnxruntime dynamic int8", "dynamic"))

_MOST, _JUDGES, _BATCH = 32, 16, 8


def split(samples: Path, kept: Path) -> tuple[Path, Arrays]:
    """Tell samples that make files from those that judge them.

    Args:
        samples: The model's samples.
        kept: Folder for files.

    Returns:
        A sample file, and other samples by graph input.
    """
    with np.load(samples) as held:
        arrays = {name: held[name] for name in held.files}
    count = len(next(iter(arrays.values())))
    order = np.random.default_rng(0).permutation(count)
    used, others = np.sort(order[: min(count // 2, _MOST)]), np.sort(order[count // 2 :][:_JUDGES])
    kept.mkdir(parents=True, exist_ok=True)
    path = kept / "calibration.npz"
    np.savez(path, **{name: array[used] for name, array in arrays.items()})
    return path, {name: array[others] for name, array in samples_of(samples).items()}


def loadable(made: Made) -> Made:
    """Hold a file to what it is for.

    Args:
        made: A file, or why there is none.

    Returns:
        The same, or why onnxruntime does not load it.
    """
    if made.path is not None:
        try:
            ort.InferenceSession(made.path, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors have no common class
            return replace(made, path=None, failure=f"does not load: {error}")
    return made


def outputs(path: Path, inputs: Arrays, batch: int) -> list[list[npt.NDArray[Any]]]:
    """Run a file.

    Args:
        path: The file.
        inputs: Samples by graph input.
        batch: Samples a run.

    Returns:
        Its outputs, run by run.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [session.run(None, feeds) for feeds in batches(inputs, batch)]


def decibels(
    reference: list[list[npt.NDArray[Any]]], found: list[list[npt.NDArray[Any]]]
) -> tuple[float, ...]:
    """Compare outputs.

    Args:
        reference: Those of the float file, run by run.
        found: Those of another.

    Returns:
        SQNR of each float output, dB.
    """
    told = []
    for place, first in enumerate(reference[0]):
        if first.dtype.kind == "f":
            difference = Difference(str(place))
            for expected, values in zip(reference, found, strict=True):
                difference.add(expected[place], values[place])
            told.append(difference.sqnr_db)
    return tuple(told)


def compare(name: str, seconds: float) -> None:
    """Make the files of one model and print a row for each.

    Args:
        name: Name in the zoo.
        seconds: Of timing.
    """
    folder, kept = prepare(name), results_folder("zoo_files") / name
    if not (folder / "samples.npz").exists():
        print(f"{name:<20} has runs with a state, no samples")
        return
    model = folder / "model.onnx"
    samples, inputs = split(folder / "samples.npz", kept)
    batch = batch_of(model, inputs, _BATCH)
    reference = outputs(model, inputs, batch)
    made = [loadable(make(each, model, samples, kept)) for each in THEIRS]
    if sizes := [file.bytes for file in made if file.path is not None]:
        made.append(make(Contestant("Bitwright", "ours", {"size": min(sizes)}), model, samples, kept))
    paths = [file.path for file in made if file.path is not None]
    timed = measure([model, *paths], samples, 1, 1, seconds)
    print(f"{name:<20} {'float':<26} {model.stat().st_size:>10,} {np.median(timed.times[:, 0]):>9.2f} ms")
    for file in made:
        if file.path is None:
            print(f"{name:<20} {file.contestant.name:<26} made no file: {file.failure[:100]}")
            continue
        column = 1 + paths.index(file.path)
        time = f"{np.median(timed.times[:, column]):>9.2f} ms  {timed.ratio(0, column):.2f} times as fast"
        told = ", ".join(f"{db:.1f}" for db in decibels(reference, outputs(file.path, inputs, batch)))
        print(f"{name:<20} {file.contestant.name:<26} {file.bytes:>10,} {time}  {told} dB", flush=True)


def main() -> None:
    """Print the rows of the models named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo_files", description=__doc__)
    parser.add_argument("names", nargs="+", choices=MODELS, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing for each model")
    given = parser.parse_args()
    for name in given.names:
        compare(name, given.seconds)


if __name__ == "__main__":
    main()
