"""What is asked of an estimator: the network, the samples, the loss, the roundings, and how much may be spent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch

from quant_core.calibration.padding import Padding
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.sensitivity.batches import MEMORY, activation_bytes
from quant_core.sensitivity.curvature.traces import Floats
from quant_core.sensitivity.cut import Cut
from quant_core.sensitivity.float_run import Quantized
from quant_core.sensitivity.objective import Objective
from quant_core.sensitivity.running.assignment import Assignment, Crew
from quant_core.sensitivity.running.memory import is_out_of_memory, with_less_at_a_time
from quant_core.sensitivity.running.probe_log import ProbeLog
from quant_core.sensitivity.running.units import in_turn, within
from quant_core.spec import FLOAT_BITS
from quant_core.spec.memory_share import memory_share
from quant_core.spec.progress import Tell, tell_nobody

T = TypeVar("T")
Widths = Sequence[int] | Mapping[str, Sequence[int]]


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked.

    Attributes:
        program: The network.
        layers: The layers, in graph order.
        feeds: Graph input name -> tensor, first axis samples.
        quantized: Layer and bits -> the weight as it would be exported; asked once for each, never for float.
        objective: The loss.
        labels: Class of each sample, shape [samples], or None.
        bits: Bit-widths for all layers, or layer name -> bit-widths; 32 is float.
        seed: Seed of probes and batches.
        fixed_batch: The batch size the graph insists on, or None.
        padding: What fills the samples up, if anything.
        tolerance: Wanted relative standard error of each layer's share of the traces.
        max_probes: Most random probes; where traces only explain, also at most six passes over the samples.
        score_tolerance: For measured methods: stop once nine in ten scores have this relative standard error.
        thrifty: Whether widths whose score follows from others are not measured, and traces that only explain are
            estimated in fewer passes.
        seconds: About how long it may take, or None; a method that works in units stops after one that ends later.
        crew: Processes to spread units over, or None for this one alone.
        log: Where what is measured is written down for a later attempt, and what an earlier one left; or None.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.
    """

    program: Program
    layers: Sequence[Layer]
    feeds: Mapping[str, torch.Tensor]
    quantized: Callable[[Layer, int], Quantized]
    objective: Objective
    labels: torch.Tensor | None = None
    bits: Widths = ()
    seed: int = 0
    fixed_batch: int | None = None
    padding: Padding | None = None
    tolerance: float = 0.05
    max_probes: int = 2000
    score_tolerance: float = 0.1
    thrifty: bool = False
    seconds: float | None = None
    crew: Crew | None = None
    log: ProbeLog | None = None
    on_progress: Tell = tell_nobody

    @property
    def samples(self) -> int:
        """Number of samples."""
        return next(iter(self.feeds.values())).shape[0] if self.feeds else 0

    @cached_property
    def sample_bytes(self) -> int:
        """Bytes of all tensors of one sample; if they do not even fit together, as much as a batch may take."""
        try:
            return activation_bytes(self.program, self.feeds, self.fixed_batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return MEMORY

    def asked(self, layer: Layer) -> Sequence[int]:
        """Give the bit-widths that a layer is asked for.

        Args:
            layer: The layer.

        Returns:
            Bit-widths, float among them where it was asked for.
        """
        return self.bits[layer.name] if isinstance(self.bits, Mapping) else self.bits

    @cached_property
    def widths(self) -> list[list[int]]:
        """Integer bit-widths of every layer."""
        return [[b for b in self.asked(layer) if b != FLOAT_BITS] for layer in self.layers]

    @cached_property
    def weights(self) -> list[list[Quantized]]:
        """Rounded weights, layers x bit-widths."""
        return [
            [self.quantized(layer, b) for b in row]
            for layer, row in zip(self.layers, self.widths, strict=True)
        ]

    @cached_property
    def norms(self) -> Floats:
        """Squared norm of Q(W) - W, layers x bit-widths; NaN where nothing was asked."""
        norms = np.full((len(self.layers), max(map(len, self.widths), default=0)), np.nan)
        for i, layer in enumerate(self.layers):
            weight = self.program.weights[layer.weight].detach().cpu().numpy()
            for k, rounded in enumerate(self.weights[i]):
                lost = (rounded.dequantize() - weight).reshape(-1)
                norms[i, k] = np.dot(lost, lost)
        return norms

    def cut(self, copies: int, clusters: int = 32) -> Cut:
        """Say how the samples are cut.

        Args:
            copies: How many times its activations a batch takes, roughly.
            clusters: At least so many batches, where there are samples enough.

        Returns:
            The cut.
        """
        whole = Cut(
            self.samples,
            self.sample_bytes * copies,
            self.seed,
            self.fixed_batch,
            clusters=clusters,
            padding=self.padding,
        )
        return whole.with_share(memory_share())

    def rounded(self, layers: Sequence[Layer]) -> list[list[Quantized]]:
        """Give the rounded weights of some layers.

        Args:
            layers: Some of the question's layers.

        Returns:
            Layers x bit-widths.
        """
        by_name = {layer.name: row for layer, row in zip(self.layers, self.weights, strict=True)}
        return [by_name[layer.name] for layer in layers]

    def estimate(
        self,
        estimator: Callable[..., T],
        cut: Cut,
        join: Callable[[Sequence[T]], T] | None = None,
        *,
        rounded: bool = False,
        in_pieces: bool = False,
        **options: Any,
    ) -> T:
        """Run an estimator for all layers, with less at a time where memory runs out.

        Args:
            estimator: As an `Assignment` takes it.
            cut: How the samples are cut at first.
            join: Puts the results of groups of layers together, or None where layers cannot be taken apart.
            rounded: Whether it takes `quantized`, the rounded weights of its layers.
            in_pieces: Whether it takes `once`, for pieces of a unit.
            options: Its other arguments.

        Returns:
            What the estimator gives.
        """

        def attempt(cut: Cut, layers: Sequence[Layer]) -> T:
            weights = {"quantized": self.rounded(layers)} if rounded else {}
            assignment = Assignment(estimator, layers, self.objective, cut, options | weights)
            found: T = self.ask(assignment, in_pieces=in_pieces, on_progress=self.on_progress)
            return found

        return with_less_at_a_time(attempt, cut, self.layers, join)

    def ask(self, assignment: Assignment, *, in_pieces: bool = False, **more: Any) -> Any:
        """Run an estimator here, with its units in every process of the crew, for as long as it may take.

        Args:
            assignment: The estimator. Without a crew, a limit on time and a log it need not take `run`.
            in_pieces: Whether the estimator takes `once`, for pieces of a unit.
            more: Arguments that belong to this process alone.

        Returns:
            What the estimator gives.
        """
        batches = assignment.cut.batches(self.feeds, self.labels, self.program.device)
        if self.crew is None and self.seconds is None and self.log is None:
            return assignment.run(self.program, batches, **more)
        with nullcontext(in_turn) if self.crew is None else self.crew.on(assignment) as run:
            if self.log is not None:
                noted = self.log.of(assignment)
                run = noted.around(run)
                more |= {"once": noted.once} if in_pieces else {}
            timed = run if self.seconds is None else within(self.seconds, run)
            return assignment.run(self.program, batches, run=timed, **more)

    def alone(self) -> Question:
        """Ask the same of an estimator that does not work in units.

        Returns:
            The question without a crew, a limit on time, and a log.
        """
        return dataclasses.replace(self, crew=None, seconds=None, log=None)

    def within(self, tolerance: float) -> Question:
        """Ask for another precision.

        Args:
            tolerance: Wanted relative standard error of each layer's share of the traces.

        Returns:
            The question with it.
        """
        return dataclasses.replace(self, tolerance=tolerance)

    def part(self, start: float, end: float) -> Question:
        """Ask for a part of the work.

        Args:
            start: Fraction done when it begins.
            end: Fraction done when it ends.

        Returns:
            The question, with its progress between those, and that share of the time.
        """
        told = self.on_progress
        seconds = None if self.seconds is None else (end - start) * self.seconds
        return dataclasses.replace(
            self,
            seconds=seconds,
            on_progress=lambda fraction, message: told(start + (end - start) * fraction, message),
        )
