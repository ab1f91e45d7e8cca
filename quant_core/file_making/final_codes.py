"""Codes of a chosen plan: found again with every calibration sample, followed, tuned as asked, biases last."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from quant_core.calibration import Samples
from quant_core.checkpoints import Checkpoints
from quant_core.file_making.choice import Choice
from quant_core.file_making.islands import Islands
from quant_core.file_making.plan_following import find_followed, follow_plan, strayed
from quant_core.file_making.plan_tuning import correct_biases, tune_plan
from quant_core.file_making.trellis_coding import code_layers
from quant_core.journal import Journal
from quant_core.preparation import Prepared
from quant_core.quantizers import QuantizedWeight
from quant_core.quantizers.following.places import FollowedPlace
from quant_core.quantizers.moments.calibration_moments import CalibrationMoments, KeptMoments
from quant_core.quantizers.rounding.mixed_channels import at_width, stored_widths
from quant_core.quantizers.rounding.round_weights import RoundedWeights, knows_more, round_weights
from quant_core.sensitivity import Objective
from quant_core.spec import QuantizeSpec, Stage
from quant_core.spec.weight_options import TUNED

Weights = Mapping[str, QuantizedWeight]


@dataclass(frozen=True, eq=False)
class FinalCodes:
    """Finds the codes that a file is handed out with.

    Attributes:
        job: The prepared job.
        spec: The request.
        journal: Told what happens.
        objective: The loss.
        samples: All calibration samples.
        parts: The samples that `rounded` has seen, and the others.
        rounded: Every layer at every width.
        moments: Input moments of the former, as far as they are held.
        whole: Whether `rounded` has seen every calibration sample; else chosen widths may be rounded again with all.
        checkpoints: What an attempt that was cut off left, and where this one leaves what it has tuned.
    """

    job: Prepared
    spec: QuantizeSpec
    journal: Journal
    objective: Objective
    samples: Samples
    parts: tuple[Samples, Samples]
    rounded: RoundedWeights
    moments: KeptMoments
    whole: bool = False
    checkpoints: Checkpoints | None = None

    def with_all_samples(self) -> FinalCodes:
        """Round every width with every calibration sample.

        Returns:
            The same for widths that need not be rounded again.
        """
        with self.journal.timed("rounding"):
            return replace(self, rounded=self._round(self.job.stored, "allocation"), whole=True)

    def of(
        self, choice: Choice, coded: Collection[str], islands: Islands | None
    ) -> tuple[Weights, tuple[str, ...]]:
        """Find codes again with every sample, each layer's for what those before it give, and tune them.

        Args:
            choice: What was decided; its bit-widths stay.
            coded: Layers that get trellis codes.
            islands: What rounded activations lose, where that was measured.

        Returns:
            Layer name -> codes, scales and bias, and what the user should know about them.
        """
        weights, notes = choice.weights, tuple[str, ...]()
        if not self.spec.by_value:
            with self.journal.timed("rounding"):
                weights = self._rounded_again(choice, coded, islands)
        if self.spec.rounding in TUNED:
            with self.journal.timed("rounding"):
                tuned = tune_plan(
                    self.job,
                    self.spec,
                    self.objective,
                    self.samples,
                    replace(choice, weights=weights),
                    self.journal.tells("export"),
                    self.checkpoints,
                )
            weights, notes = tuned.weights, tuned.notes
            self.journal.tell("export", 0.9, f"{self.spec.rounding}: {tuned.told}")
        with self.journal.timed("rounding"):
            parts = replace(choice, weights=weights), self.samples, islands
            return correct_biases(self.job, self.spec, *parts, self.journal.tells("export")), notes

    def _rounded_again(self, choice: Choice, coded: Collection[str], islands: Islands | None) -> Weights:
        """Codes from every sample, and where layers are followed for the inputs that they will be given."""
        places = find_followed(self.job, self.spec, choice, self.samples, islands)
        found = self._followed(choice, coded, places)
        if places and strayed(self.job, choice, found, self.samples):
            return self._followed(choice, coded, ())
        return found

    def _followed(self, choice: Choice, coded: Collection[str], followed: Sequence[FollowedPlace]) -> Weights:
        """Codes from every sample, for the inputs that layers will be given in these places."""
        weights, widths = dict(choice.weights), choice.stored_widths
        if not self.whole:
            layers = [layer for layer in self.job.layers if knows_more(layer, self.samples.count)]
            again = {layer.name for layer in layers} - {place.layer.name for place in followed}
            narrow = {name: weight.narrow for name, weight in weights.items()}
            wanted = {n: stored_widths(w, narrow.get(n)) if n in again else () for n, w in widths.items()}
            rounded = self._round(wanted, "export")
            weights |= {n: at_width(rounded[n], widths[n], narrow[n]) for n in again if n in weights}
        again = {place.layer.name for place in followed if knows_more(place.layer, self.samples.count)}
        once = [layer for layer in self.job.layers if layer.name in set(coded) - again]
        tell = self.journal.tells("export")
        weights |= code_layers(self.job, self.spec, once, weights, self.parts[0], self.moments, tell)
        choice = replace(choice, weights=weights)
        return follow_plan(self.job, self.spec, choice, followed, self.samples, self.rounded, tell, coded)

    def _round(self, widths: Mapping[str, Collection[int]], stage: Stage) -> RoundedWeights:
        network, (seen, unseen) = self.job.network, self.parts
        calibration = CalibrationMoments(network, seen, self.spec.seed, more=unseen, kept=self.moments)
        tell = self.journal.tells(stage)
        return round_weights(calibration, widths, self.spec, on_progress=tell, given=self.rounded)
