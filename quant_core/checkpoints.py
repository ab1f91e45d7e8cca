"""What a job that was cut off leaves for its next attempt: one folder a stage, and several for what was measured."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quant_core.codes import CorrectedBias, NarrowChannels, QuantizedWeight
from quant_core.codes.outliers import Outliers
from quant_core.version import __version__

if TYPE_CHECKING:
    from quant_core.sensitivity.running.probe_log import ProbeLog

ROUNDING = "rounding"
SENSITIVITIES = "sensitivity"
TUNING = "tuning"
PROBES = "probes"

_MARK = "version.json"
_TOLD = "told.json"
_MOST_BYTES = 2**30
"""Larger codes are rounded again: to move them takes longer than most of what it saves."""

Rounded = Mapping[str, Mapping[int, QuantizedWeight]]


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of one job, all of the same model, samples and request.

    Attributes:
        folder: Holds one folder for each; those of earlier attempts are there already.
        on_kept: Told the name of each that is complete.
        probe_seconds: Least time between two of what is measured.
    """

    folder: Path
    on_kept: Callable[[str], None] = lambda _: None
    probe_seconds: float = 3.0

    def find(self, name: str) -> Path | None:
        """Look for what an earlier attempt left.

        Args:
            name: The stage.

        Returns:
            Its folder; None if there is none, or another version of the engine left it.
        """
        found = self.folder / name
        mark = found / _MARK
        return found if mark.is_file() and json.loads(mark.read_bytes()) == engine_mark() else None

    def told(self, name: str) -> dict[str, Any]:
        """Give what was told beside rounded weights.

        Args:
            name: The stage; it was found.

        Returns:
            As it was told.
        """
        told: dict[str, Any] = json.loads((self.folder / name / _TOLD).read_bytes())
        return told

    @contextmanager
    def keep(self, name: str) -> Iterator[Path]:
        """Leave something for the next attempt; it is there whole or not at all.

        Args:
            name: The stage.

        Yields:
            An empty folder to write to.
        """
        part = self.folder / f".{name}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        (part / _MARK).write_text(json.dumps(engine_mark()))
        shutil.rmtree(self.folder / name, ignore_errors=True)
        part.rename(self.folder / name)
        self.on_kept(name)


@cache
def engine_mark(sources: Path = Path(__file__).parent) -> str:
    """Name the engine that writes a checkpoint: another one may write other files, or measure otherwise.

    Args:
        sources: Folder of its modules.

    Returns:
        The version, and a digest of the modules, which change more often.
    """
    digest = hashlib.sha256()
    for module in sorted(sources.rglob("*.py")):
        digest.update(f"{module.relative_to(sources)}\0".encode() + module.read_bytes() + b"\0")
    return f"{__version__} {digest.hexdigest()[:16]}"


def probe_log(checkpoints: Checkpoints | None) -> ProbeLog | None:
    """Take up what earlier attempts measured, and write down what this one measures.

    Every write is a checkpoint of its own, `probes-1`, `probes-2` and so on, which holds what is new alone: whoever
    takes one away is in the way of no other, and an hour of measuring is not copied every few seconds.

    Args:
        checkpoints: Where; None for nowhere.

    Returns:
        The log.
    """
    if checkpoints is None:
        return None
    from quant_core.sensitivity.running.probe_log import (
        ProbeLog,  # brings torch, which checkpoints do without
    )

    known: dict[str, np.ndarray] = {}
    last = 0
    for folder in sorted(checkpoints.folder.glob(f"{PROBES}-*")):
        last = max(last, int(folder.name.removeprefix(f"{PROBES}-")))
        if checkpoints.find(folder.name) is not None:
            with np.load(folder / "probes.npz", allow_pickle=False) as arrays:
                known |= {key: arrays[key] for key in arrays.files}
    numbers = count(last + 1)

    def write(found: Mapping[str, np.ndarray]) -> None:
        with checkpoints.keep(f"{PROBES}-{next(numbers)}") as folder:
            arrays: dict[str, np.ndarray] = {**found}
            np.savez(folder / "probes.npz", allow_pickle=False, **arrays)

    return ProbeLog(known, write, seconds=checkpoints.probe_seconds)


def keep_rounded(
    checkpoints: Checkpoints | None,
    rounded: Rounded,
    stage: str = ROUNDING,
    told: Mapping[str, Any] | None = None,
) -> None:
    """Leave rounded weights for the next attempt, unless they are too many.

    Args:
        checkpoints: Where to; None for nowhere.
        rounded: Layer name -> width -> codes and scales.
        stage: The stage that made them.
        told: What else it found, as JSON.
    """
    weights = [(name, bits, weight) for name, widths in rounded.items() for bits, weight in widths.items()]
    if checkpoints is None or sum(weight.codes.nbytes for _, _, weight in weights) > _MOST_BYTES:
        return
    with checkpoints.keep(stage) as folder:
        arrays: dict[str, np.ndarray] = {}
        rows = []
        for number, (name, bits, weight) in enumerate(weights):
            found: dict[str, np.ndarray | None] = {
                "codes": weight.codes,
                "scale": weight.scale,
                "zero_point": weight.zero_point,
                "bias": None if weight.bias is None else weight.bias.values,
                "outliers": None if weight.outliers is None else weight.outliers.positions,
                "narrow": None if weight.narrow is None else weight.narrow.channels,
            }
            arrays |= {f"{number}.{part}": array for part, array in found.items() if array is not None}
            plain = {
                "axis": weight.axis,
                "bits": weight.bits,
                "block_size": weight.block_size,
                "format": weight.format,
                "tensor_scale": weight.tensor_scale,
                "trellis": weight.trellis,
            }
            kept = None if weight.outliers is None else [weight.outliers.pairs, weight.outliers.left]
            narrow = None if weight.narrow is None else weight.narrow.bits
            rows.append([name, bits, plain, None if weight.bias is None else weight.bias.name, kept, narrow])
        np.savez(folder / "weights.npz", allow_pickle=False, **arrays)
        (folder / "weights.json").write_text(json.dumps(rows))
        (folder / _TOLD).write_text(json.dumps(told or {}))


def find_rounded(checkpoints: Checkpoints | None, stage: str = ROUNDING) -> Rounded | None:
    """Take up the rounded weights of an earlier attempt.

    Args:
        checkpoints: Where from; None for nowhere.
        stage: The stage that made them.

    Returns:
        Layer name -> bits -> codes and scales; None if there are none.
    """
    folder = None if checkpoints is None else checkpoints.find(stage)
    if folder is None:
        return None
    rounded: dict[str, dict[int, QuantizedWeight]] = {}
    with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
        for number, (name, bits, plain, bias, kept, narrow) in enumerate(
            json.loads((folder / "weights.json").read_bytes())
        ):
            zero_point = f"{number}.zero_point"
            if isinstance(plain["axis"], list):  # which is what JSON makes of several
                plain["axis"] = tuple(plain["axis"])
            rounded.setdefault(name, {})[bits] = QuantizedWeight(
                codes=arrays[f"{number}.codes"],
                scale=arrays[f"{number}.scale"],
                zero_point=arrays.get(zero_point),
                bias=None if bias is None else CorrectedBias(bias, arrays[f"{number}.bias"]),
                outliers=None if kept is None else Outliers(arrays[f"{number}.outliers"], *kept),
                narrow=None if narrow is None else NarrowChannels(narrow, arrays[f"{number}.narrow"]),
                **plain,
            )
    return rounded
