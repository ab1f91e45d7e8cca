"""What a process and its workers say to each other, one pickle after the other over a pipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quant_core.sensitivity.running.assignment import Assignment


@dataclass(frozen=True)
class Setup:
    """What a worker loads once; files, so that all workers share one copy of the pages.

    Attributes:
        model: The ONNX file, with its weights as external data.
        feeds: Graph input name -> `.npy` file.
        labels: `.npy` file, or None.
        device: Where it computes.
        threads: Threads it computes with on the CPU.
    """

    model: Path
    feeds: dict[str, Path]
    labels: Path | None
    device: str
    threads: int


@dataclass(frozen=True)
class Start:
    """Start an estimator; answered by nothing.

    Attributes:
        assignment: The estimator.
    """

    assignment: Assignment


@dataclass(frozen=True)
class Work:
    """Work off one unit; answered by `Done` or `Failed`.

    Attributes:
        batch: Index of its batch.
        number: Its number.
    """

    batch: int
    number: int


@dataclass(frozen=True)
class Stop:
    """Leave the estimator; answered by itself."""


@dataclass(frozen=True, eq=False)
class Done:
    """The result of a unit.

    Attributes:
        result: The result.
    """

    result: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Failed:
    """A unit raised an error.

    Attributes:
        error: The error where it can be sent, else its text.
        out_of_memory: Whether it is a failed allocation.
    """

    error: Any
    out_of_memory: bool
