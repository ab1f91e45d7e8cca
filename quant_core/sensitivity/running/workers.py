"""Units of an estimate over several processes, one for each device."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from quant_core.errors import InternalError, MemoryLimitError
from quant_core.sensitivity.running.assignment import Assignment
from quant_core.sensitivity.running.messages import Done, Failed, Setup, Start, Stop, Work
from quant_core.sensitivity.running.units import RunUnits, Unit, in_turn

_AHEAD = 2
"""Units that each process is given before its first result is read."""


class OneThread:
    """This process, computing with one thread: what several processes of one thread each give the same numbers as."""

    @contextmanager
    def on(self, assignment: Assignment) -> Iterator[RunUnits]:  # noqa: ARG002
        """Compute with one thread for as long as the context lasts.

        Args:
            assignment: The estimator.

        Yields:
            What runs units one after the other.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield in_turn
        finally:
            torch.set_num_threads(threads)


class Workers:
    """Processes that each hold the network and the samples. Use it in a `with` statement.

    Unit k goes to process k modulo their number, results are handed on in the order of the units, and on a CPU every
    process computes with one thread: an estimate is the same to the last bit whatever the number of processes, since
    its sums are made in one place and one order, and its stopping rule sees one unit after the other.
    """

    def __init__(
        self,
        model: ir.Model,
        feeds: Mapping[str, torch.Tensor],
        labels: torch.Tensor | None,
        devices: Sequence[str],
    ) -> None:
        """Start the processes; they load what they need at their own pace.

        Args:
            model: The graph that the units run.
            feeds: Graph input name -> tensor, first axis samples.
            labels: Class of each sample, or None.
            devices: Where each process computes: `cpu` any number of times, or different `cuda:N`.
        """
        self._closing = ExitStack()
        try:
            folder = Path(
                self._closing.enter_context(tempfile.TemporaryDirectory(prefix="bitwright-workers-"))
            )
            files = _write(model, feeds, labels, folder)
            self._workers = [_Worker(Setup(*files, device=device, threads=1)) for device in devices]
            for worker in self._workers:
                self._closing.callback(worker.close)
        except BaseException:
            self._closing.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    @contextmanager
    def on(self, assignment: Assignment) -> Iterator[RunUnits]:
        """Have every process start an estimator.

        Args:
            assignment: The estimator; its options must be values that can be pickled.

        Yields:
            What spreads its units over the processes.
        """
        for worker in self._workers:
            worker.settle()
            worker.send(Start(assignment))
        try:
            yield self._run
        finally:
            # A unit that is under way is waited for only by who next wants something of its process.
            for worker in self._workers:
                worker.send(Stop())

    def _run(
        self,
        unit: Unit,  # noqa: ARG002  # the workers have their own
        order: Iterable[tuple[int, int]],
    ) -> Generator[npt.NDArray[np.float64], None, None]:
        waiting: deque[_Worker] = deque()
        count = len(self._workers)
        for k, (batch, number) in enumerate(order):
            if len(waiting) == _AHEAD * count:
                yield waiting.popleft().result()
            worker = self._workers[k % count]
            worker.send(Work(batch, number))
            waiting.append(worker)
        while waiting:
            yield waiting.popleft().result()


class _Worker:
    def __init__(self, setup: Setup) -> None:
        # Nothing but the import path is taken from this process: no script is run a second time, as `spawn` would.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if setup.device == "cpu":
            environment |= {"OMP_NUM_THREADS": str(setup.threads), "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "quant_core.sensitivity.running.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._stopping = False
        self.send(setup)

    def send(self, message: object) -> None:
        assert self._process.stdin is not None
        self._stopping = isinstance(message, Stop)
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._lost() from error

    def result(self) -> npt.NDArray[np.float64]:
        message = self._receive()
        if isinstance(message, Done):
            return message.result
        assert isinstance(message, Failed)
        if message.out_of_memory:
            raise MemoryError(str(message.error))
        if isinstance(message.error, BaseException):
            raise message.error
        raise InternalError(f"a worker failed: {message.error}")

    def settle(self) -> None:
        """Read over what is left until the process has stopped its estimator, where it was told to."""
        while self._stopping:
            self._stopping = not isinstance(self._receive(), Stop)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        with suppress(BrokenPipeError):  # bytes that it will never read
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)  # noqa: S301  # from a process this one started
        except EOFError as error:
            raise self._lost() from error

    def _lost(self) -> Exception:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return MemoryLimitError(
                "a worker process was killed; out of memory is the usual cause.",
                remedy="Use fewer workers, or smaller samples.",
                where="workers",
            )
        return InternalError(f"a worker process ended with exit code {code}")


def _write(
    model: ir.Model, feeds: Mapping[str, torch.Tensor], labels: torch.Tensor | None, folder: Path
) -> tuple[Path, dict[str, Path], Path | None]:
    path = folder / "model.onnx"
    ir.save(model, path, external_data="weights.bin")
    files = {name: folder / f"input{i}.npy" for i, name in enumerate(feeds)}
    for name, file in files.items():
        np.save(file, feeds[name].cpu().numpy(), allow_pickle=False)
    if labels is None:
        return path, files, None
    np.save(folder / "labels.npy", labels.cpu().numpy(), allow_pickle=False)
    return path, files, folder / "labels.npy"
