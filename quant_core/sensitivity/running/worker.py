"""One worker process, `python -m quant_core.sensitivity.running.worker`: pickles on standard input say what to do."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Generator, Iterable
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from quant_core.executor import compile_model
from quant_core.sensitivity.running.memory import is_out_of_memory
from quant_core.sensitivity.running.messages import Done, Failed, Setup, Start, Stop, Work
from quant_core.sensitivity.running.units import Unit


class _StoppedError(Exception):
    """The estimator is not wanted any more."""


class _Pipe:
    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing

    def receive(self) -> Any:
        return pickle.load(self._reading)  # noqa: S301  # from the process that started this one

    def send(self, message: object) -> None:
        pickle.dump(message, self._writing)
        self._writing.flush()

    def serve(
        self,
        unit: Unit,
        order: Iterable[tuple[int, int]],  # noqa: ARG002  # the other end knows it
    ) -> Generator[npt.NDArray[np.float64], None, None]:
        """Work off the units that are asked for, instead of all in order; ends by an exception."""
        yield from ()  # a generator, as its callers close it
        while isinstance(message := self.receive(), Work):
            try:
                result: object = Done(unit(message.batch, message.number))
            except Exception as error:
                result = _failure(error)
            self.send(result)
        self.send(Stop())
        raise _StoppedError


def main() -> None:
    """Load the network and the samples once, then run estimators until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process decides when it ends
    pipe = _Pipe(sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # nothing else may write into the pipe
    with contextlib.suppress(EOFError, BrokenPipeError):  # the other end is gone
        _serve(pipe, pipe.receive())


def _serve(pipe: _Pipe, setup: Setup) -> None:
    torch.set_num_threads(setup.threads)
    program = compile_model(ir.load(setup.model), device=setup.device)
    feeds = {name: torch.from_numpy(np.load(path, mmap_mode="c")) for name, path in setup.feeds.items()}
    labels = None if setup.labels is None else torch.from_numpy(np.load(setup.labels))
    while True:
        start: Start = pipe.receive()
        assignment = start.assignment
        try:
            batches = assignment.cut.batches(feeds, labels, program.device)
            assignment.run(program, batches, run=pipe.serve)
        except _StoppedError:
            continue
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:  # before or between its units: told in answer to each of them
            failure = _failure(error)
            while isinstance(pipe.receive(), Work):
                pipe.send(failure)
            pipe.send(Stop())


def _failure(error: Exception) -> Failed:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    except Exception:
        return Failed(f"{type(error).__name__}: {error}", is_out_of_memory(error))
    return Failed(error, is_out_of_memory(error))


if __name__ == "__main__":
    main()
