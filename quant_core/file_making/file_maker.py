"""Files made from plans: settled under limits, calibrated, written, weighed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import onnx

from quant_core.allocation.file_costs import smallest_reachable
from quant_core.allocation.plan_bits import Limits
from quant_core.allocation.plan_problem import PlanProblem
from quant_core.artifacts import MODEL
from quant_core.errors import InfeasibleBudgetError
from quant_core.export import Placement, place, predict_sizes
from quant_core.export.storage.model_file import write_model
from quant_core.export.writing.exporter import export_parts
from quant_core.file_making.activation_grids import ActivationGrids
from quant_core.file_making.channel_mixing import Mixed, Shares, find_shares, plan_by_channel
from quant_core.file_making.choice import Choice
from quant_core.file_making.final_codes import FinalCodes
from quant_core.file_making.float_islands import find_islands
from quant_core.file_making.islands import Islands
from quant_core.file_making.open_activations import note_narrow
from quant_core.file_making.trellis_coding import (
    NO_TRELLIS,
    TrellisRoom,
    find_room,
    less,
    settle_with_room,
    to_be_coded,
)
from quant_core.ingest import Layer, with_float_activations
from quant_core.journal import Journal
from quant_core.preparation import Prepared
from quant_core.preparation.float_speed import may_leave_integers
from quant_core.preparation.open_widths import layers_at
from quant_core.sensitivity import Objective
from quant_core.spec import FLOAT_BITS, BitPlan, QuantizeSpec
from quant_core.spec.width import width_of
from quant_core.trials import PlanMeter, Settled, affordable_rounds, settle

_REPLANS = 4


@dataclass(frozen=True, eq=False)
class Made:
    """A written file and how its plan came about.

    Attributes:
        choice: What was decided and written.
        settled: The plan and what it was held against.
        by_layer: The plan before channels were given two widths.
        size: Bytes of the file.
        notes: What the user should know about its codes.
    """

    choice: Choice
    settled: Settled
    by_layer: BitPlan
    size: int
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class FileMaker:
    """Makes `model.onnx` from plans.

    Attributes:
        job: The prepared job.
        spec: The request.
        folder: Where the file is written.
        journal: Told what happens.
        problem: Scores, candidates, costs.
        objective: The loss.
        meter: Measures plans.
        codes: Every layer at every width, and what finds the codes of a plan.
        activations: Finds grids of activations.
        islands: Layers that run in float for their activations' sake; None while none were looked for.
        shares: Layer name -> share of its loss by output channel, where channels may differ; None while not looked for.
        reach: Share of the file's time that float islands take however little is lost; None for as much as is worth it.
    """

    job: Prepared
    spec: QuantizeSpec
    folder: Path
    journal: Journal
    problem: PlanProblem
    objective: Objective
    meter: PlanMeter
    codes: FinalCodes
    activations: ActivationGrids
    islands: Islands | None = None
    shares: Shares | None = None
    reach: float | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / MODEL

    @cached_property
    def room(self) -> TrellisRoom:
        """Layers that may get trellis codes, and the bytes that decoding these takes."""
        return find_room(self.job, self.spec)

    def make(self, limits: Limits, *, quick: bool = False) -> Made:
        """Settle a plan and write its file; plan again under a tighter limit while the file comes out too large.

        Args:
            limits: Limits by cost.
            quick: Leave the plan as it was solved, without refinement.

        Returns:
            The file within the request's budget.

        Raises:
            InfeasibleBudgetError: If no plan fits, or files keep coming out larger than predicted.
        """
        margin, planned, room = 0, None, self.room
        for _ in range(_REPLANS):
            try:
                if planned is None:
                    settling = partial(self.settle, quick=quick)
                    planned, room = settle_with_room(settling, less(limits, margin), room)
            except InfeasibleBudgetError as error:
                if self.islands is not None and self.islands.shares:
                    self.islands, margin, planned = Islands(), 0, None
                    continue
                if margin and error.where == "size":
                    raise self._too_large(margin) from error
                raise
            mixed = self._by_channel(planned, less(limits, margin + room.whole))
            settled, plan = mixed.settled, mixed.settled.plan
            placement = self._place(plan)
            with self.journal.timed("calibration"):
                grids = self.activations.of(placement)
            weights = mixed.weights(self.codes.rounded)
            self.journal.tell("export", 0, "writing model.onnx")
            choice = self._with_islands(Choice(plan, placement, grids, weights), settled)
            plan = self._foretold(choice.plan)
            size = self.write(choice)
            coded = to_be_coded(self.job.layers, choice, self.problem, room)
            if self.job.budget is None or size + room.of(coded) <= self.job.budget:
                plan = plan.model_copy(update={"budget_bytes": self.job.budget})
                told, settled = self._told(settled), replace(settled, plan=plan)
                return self._finish(
                    Made(replace(choice, plan=plan), settled, planned.plan, size, told), room, coded
                )
            margin = max(margin + 1, size - settled.plan.predicted_bytes)
            planned = planned if mixed.narrow else None  # which leaves room for channels to give way
        raise self._too_large(margin)

    def _too_large(self, margin: int) -> InfeasibleBudgetError:
        """Files have come out larger than was predicted: say what the smallest one would."""
        smallest = smallest_reachable(self.problem.candidates, self.problem.files, self.problem.ties) + margin
        return InfeasibleBudgetError(
            f"a budget of {self.job.budget} bytes cannot be met: the smallest reachable file is {smallest} bytes.",
            remedy=f"Allow at least {smallest} bytes, fewer bits, or fewer pins.",
            where="size",
        )

    def _layers(self, plan: BitPlan, in_float: Collection[str] = ()) -> tuple[Layer, ...]:
        """The layers with the activation bits that a plan gives them, some of them in float."""
        return with_float_activations(layers_at(self.job.layers, plan.widths), in_float)

    def _place(self, plan: BitPlan, in_float: Collection[str] = ()) -> Placement:
        job, wanted = self.job, self.spec.default_activation_bits
        return place(job.model, self._layers(plan, in_float), plan.bits, wanted, job.target, self.spec)

    def _with_islands(self, choice: Choice, settled: Settled) -> Choice:
        """The plan with the layers in float that lose most by rounded activations; found once, for the first plan."""
        if not may_leave_integers(self.spec, self.job.target):
            return choice
        plan = choice.plan
        if self.islands is None:
            with self.journal.timed("calibration"):
                # One sample whose answer tips over can make up all of a loss that is measured on few.
                measured = [trial.measured_loss for trial in settled.trials if trial.chosen]
                self.islands = find_islands(
                    self.job,
                    self.spec,
                    choice,
                    self.objective,
                    self.codes.parts[1],
                    min([plan.predicted_loss, *measured]),
                    self.journal.tells("calibration"),
                    self.reach,
                )
        islands = self.islands
        if not islands.shares:
            return choice
        placement = self._place(plan, islands.shares)
        told = tuple(
            layer
            if (reason := islands.reason(layer.name)) is None
            else layer.model_copy(update={"reason": f"{reason}; {layer.reason}"})
            for layer in plan.layers
        )
        plan = plan.model_copy(update={"layers": told})
        return replace(choice, plan=plan, placement=placement, grids=self.activations.of(placement))

    def _foretold(self, plan: BitPlan) -> BitPlan:
        """The plan with the bytes of its own forms: costs are those of integers wherever a layer can have them."""
        candidates, islands = self.problem.candidates, self.islands
        chosen = any(each.bits == FLOAT_BITS and len(candidates[each.name].bits) > 1 for each in plan.layers)
        if not chosen and (islands is None or not islands.shares):
            return plan
        job, widths = self.job, {name: (bits,) for name, bits in plan.bits.items()}
        noted = self._layers(plan, () if islands is None else islands.shares)
        sizes = predict_sizes(
            job.model, noted, widths, self.spec.default_activation_bits, job.target, self.spec
        )
        dense = {each.name: width_of(each.bits, each.activation_bits) for each in plan.layers}
        outliers = job.costs.total(plan.widths) - job.costs.total(dense)
        if any(each.narrow_bits is not None for each in plan.layers):
            outliers += plan.predicted_bytes - job.costs.total(plan.widths)
        return plan.model_copy(update={"predicted_bytes": sizes.total(plan.bits) + outliers})

    def _by_channel(self, settled: Settled, limits: Limits) -> Mixed:
        """The plan, or one within the same limits whose layers give their channels two widths."""
        job, spec = self.job, self.spec
        with self.journal.timed("allocation"):
            if self.shares is None:
                self.shares = find_shares(job, spec, self.objective, settled, self.codes.rounded, self.meter)
            if not self.shares:
                return Mixed(settled)
            self.journal.tell("allocation", 1, f"channels of {len(self.shares)} layers told apart")
            parts = settled, limits, self.shares, self.meter
            return plan_by_channel(job, spec, self.problem, *parts)

    def _told(self, settled: Settled) -> tuple[str, ...]:
        islands = () if self.islands is None or not self.islands.shares else (self.islands.note,)
        loss = next((trial.measured_loss for trial in settled.trials if trial.chosen), None)
        return (*note_narrow(settled.plan, loss), *islands)

    def write(self, choice: Choice) -> int:
        """Write a file.

        Args:
            choice: What was decided.

        Returns:
            Its bytes, those of a second file with the tensors included.
        """
        with self.journal.timed("export"):
            file = export_parts(
                self.job.model,
                self.job.layers,
                choice.weights,
                choice.placement,
                choice.grids,
                self.job.target,
            )
            size = write_model(file, self.path)
            onnx.checker.check_model(self.path, full_check=True)
        return size

    def with_all_samples(self) -> FileMaker:
        """Round every width with every calibration sample, so that each file is what would be handed out.

        Returns:
            A maker of such files.
        """
        return replace(self, codes=self.codes.with_all_samples())

    def settle(self, limits: Limits, *, quick: bool = False) -> Settled:
        """Settle a plan without a file.

        Args:
            limits: Limits by cost.
            quick: Leave the plan as it was solved, without refinement.

        Returns:
            The plan and what it was held against.
        """
        job = self.job
        macs = sum(layer.macs for layer in job.layers)
        quick = quick or self.spec.effort == "fast"
        rounds = 0 if quick else affordable_rounds(self.problem, macs, self.meter.samples)
        with self.journal.timed("allocation"):
            self.journal.tell("allocation", 0, f"bits for {len(job.layers)} layers")
            settled = settle(
                self.problem,
                limits,
                self.meter,
                rounds=rounds,
                on_progress=self.journal.tells("allocation"),
            )
            plan = settled.plan
        self.journal.tell(
            "allocation", 1, f"predicted loss {plan.predicted_loss:.4g}, {plan.predicted_bytes} bytes"
        )
        return settled

    def _finish(self, made: Made, room: TrellisRoom, coded: Collection[str]) -> Made:
        """Write the file once more with its final codes, where these are others."""
        choice = made.choice
        weights, told = self.codes.of(choice, coded, self.islands)
        notes = (*made.notes, *told)
        if all(weights[name] is weight for name, weight in choice.weights.items()):
            self.journal.tell("export", 1, "model.onnx is written")
            return replace(made, notes=notes)
        if self.spec.trellis and not any(weight.trellis for weight in weights.values()):
            notes = (*notes, NO_TRELLIS)
        decoding = room.of([name for name, weight in weights.items() if weight.trellis])
        plan = choice.plan.model_copy(update={"predicted_bytes": choice.plan.predicted_bytes + decoding})
        choice = replace(choice, plan=plan, weights=weights)
        made = replace(made, settled=replace(made.settled, plan=plan))
        size = self.write(choice)
        self.journal.tell("export", 1, f"{size} bytes")
        return replace(made, choice=choice, size=size, notes=notes)
