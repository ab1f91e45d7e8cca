"""Codes of a chosen plan found again for the inputs that layers will be given."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from quant_core.calibration import Samples
from quant_core.file_making.choice import Choice, simulate
from quant_core.file_making.islands import Islands
from quant_core.ingest.macs import affordable_samples
from quant_core.preparation import Prepared
from quant_core.quantizers import QuantizedWeight
from quant_core.quantizers.following.follow import FollowedPlan, Look, Weights, follow
from quant_core.quantizers.following.look_trial import best_look
from quant_core.quantizers.following.outcome import leads_astray
from quant_core.quantizers.following.places import FollowedPlace, followed_places
from quant_core.quantizers.rounding.round_weights import RoundedWeights
from quant_core.spec import QuantizeSpec
from quant_core.spec.progress import Tell

_MOST_SAMPLES, _ENOUGH, _MOST_MACS = 64, 16, 16e9
"""Samples that tell what following led to: the most, those that large networks are given, and the products that one
run of all may take beyond these."""


def find_followed(
    job: Prepared, spec: QuantizeSpec, choice: Choice, samples: Samples, islands: Islands | None
) -> list[FollowedPlace]:
    """Find the layers of a plan that are followed.

    Args:
        job: The prepared job.
        spec: The request.
        choice: What was decided.
        samples: Calibration samples.
        islands: What rounded activations lose, where that was measured.

    Returns:
        Where they are; none where the request wants none, and where next to nothing is lost.
    """
    if not spec.follow or (islands is not None and islands.nothing_lost(choice.plan.predicted_loss)):
        return []
    layers = [layer for layer in job.layers if layer.name in choice.weights]
    return followed_places(job.graph, layers, samples)


def follow_plan(
    job: Prepared,
    spec: QuantizeSpec,
    choice: Choice,
    places: Sequence[FollowedPlace],
    samples: Samples,
    rounded: RoundedWeights,
    on_progress: Tell,
    coded: Collection[str] = (),
) -> Mapping[str, QuantizedWeight]:
    """Round the layers of a plan again, each for the inputs that the rounded network gives it; the bytes stay.

    With the effort `best` more columns are looked at, and mixed samples, where others confirm that these help.

    Args:
        job: The prepared job.
        spec: The request.
        choice: What was decided.
        places: Where layers are followed.
        samples: Calibration samples.
        rounded: Codes at all widths, whose ranges are kept.
        on_progress: Called with the fraction done and a message; may raise to stop.
        coded: Layers that get trellis codes.

    Returns:
        Layer name -> codes.
    """
    plan = FollowedPlan(
        job.network,
        places,
        choice.weights,
        choice.stored_widths,
        rounded,
        lambda weights: simulate(job.graph, job, replace(choice, weights=weights)),
        spec,
        spec.seed,
    )

    def tried(some: Samples, look: Look) -> Weights:
        return follow(
            plan, some, look, on_progress=lambda _, told: on_progress(0.0, f"which columns help: {told}")
        )

    look: Look = "few"
    if spec.effort == "best" and places:
        look = best_look(job.network, tried, plan.simulate, samples)
    return follow(plan, samples, look, coded=coded, on_progress=on_progress)


def strayed(job: Prepared, choice: Choice, followed: Mapping[str, QuantizedWeight], samples: Samples) -> bool:
    """Tell whether a plan's outputs are worse for having been followed.

    Args:
        job: The prepared job.
        choice: What was decided, with the codes before.
        followed: Layer name -> codes that followed.
        samples: Calibration samples.

    Returns:
        True where they lie further from those of the float network.
    """
    enough = min(_MOST_SAMPLES, max(_ENOUGH, affordable_samples(job.layers, _MOST_MACS)))
    before, after = (
        simulate(job.graph, job, replace(choice, weights=weights)) for weights in (choice.weights, followed)
    )
    return leads_astray(job.network, before, after, samples.spread(enough))
