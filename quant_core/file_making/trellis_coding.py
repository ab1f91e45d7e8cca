"""Trellis codes for the layers of a chosen plan: where they pay, the bytes kept free for decoding, the codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from quant_core.allocation.plan_bits import Limits
from quant_core.allocation.plan_problem import BYTES, PlanProblem
from quant_core.calibration import Samples
from quant_core.codes.trellis import TRELLIS_BITS
from quant_core.errors import InfeasibleBudgetError
from quant_core.export.placement.forms import Form
from quant_core.export.size.trellis import decoder_bytes, decoding_bytes
from quant_core.file_making.choice import Choice
from quant_core.ingest import Layer
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.preparation import Prepared
from quant_core.quantizers import QuantizedWeight
from quant_core.quantizers.bias_correction.input_means import find_bias
from quant_core.quantizers.moments.calibration_moments import KeptMoments
from quant_core.quantizers.moments.input_moments import Moments, input_moments
from quant_core.quantizers.rounding.trellis import can_be_coded, path_axis, trellis_coded
from quant_core.spec import QuantizeSpec
from quant_core.spec.progress import Tell
from quant_core.trials import Settled

NO_TRELLIS = "No layer has trellis codes: there is none that they help, or no room for the bytes of decoding."

_GAIN, _SAVED = 0.2, 0.15
"""Share of its loss that coding takes from a layer at least, and how many bits a weight would do the same or less."""
_A_BYTE = 8 * math.log(4)
"""Share of a plan's loss that is gained by a byte for each of its weights: four times less with every bit."""
_FOLDED: frozenset[Form] = frozenset({"static", "dynamic", "weight_only", "wide"})
"""Forms whose weights onnxruntime decodes when it loads the file."""


@dataclass(frozen=True)
class TrellisRoom:
    """Bytes that decoding takes.

    Attributes:
        layers: Layer name -> bytes, of the layers that may be coded.
        once: Bytes of what they have in common.
    """

    layers: Mapping[str, int] = field(default_factory=dict)
    once: int = 0

    @property
    def whole(self) -> int:
        """Bytes that decoding all of them takes."""
        return self.of(self.layers)

    def of(self, names: Collection[str]) -> int:
        """Give the bytes that decoding some layers takes.

        Args:
            names: The layers.

        Returns:
            Bytes.
        """
        return sum(self.layers[name] for name in names) + (self.once if names else 0)


def find_room(job: Prepared, spec: QuantizeSpec) -> TrellisRoom:
    """Find the layers that may be coded, before there is a plan.

    Args:
        job: The prepared job.
        spec: The request.

    Returns:
        Those with paths, of 2 to 5 bits perhaps, in which decoding takes less than coding saves; none where the request
        or the runtime has none, or where all together are not worth the function that decodes them.
    """
    if not (spec.trellis and job.target.decodes_trellis):
        return TrellisRoom()
    layers, parameters = {}, 0
    for layer in job.layers:
        axis = path_axis(layer)
        if axis is None or not {*TRELLIS_BITS}.intersection(job.candidates[layer.name].bits):
            continue
        size = decoding_bytes(job.target, layer.shape, axis)
        if 8 * size <= layer.parameters:
            layers[layer.name] = size
            parameters += layer.parameters
    room = TrellisRoom(layers, decoder_bytes(job.target))
    return room if 8 * room.whole <= _SAVED * parameters else TrellisRoom()


def settle_with_room(
    settle: Callable[[Limits], Settled], limits: Limits, room: TrellisRoom
) -> tuple[Settled, TrellisRoom]:
    """Settle a plan that leaves the bytes of decoding free where that promises to lose less, else one in all bytes.

    Args:
        settle: Limits by cost -> a plan within them.
        limits: Limits by cost.
        room: Layers that may be coded.

    Returns:
        The plan, and the room that it leaves.
    """
    scalar = settle(limits)
    if BYTES not in limits or not room.layers:
        return scalar, room
    try:
        coded = settle(less(limits, room.whole))
    except InfeasibleBudgetError:
        return scalar, TrellisRoom()
    return (coded, room) if is_worth_its_room(coded, scalar) else (scalar, TrellisRoom())


def less(limits: Limits, size: int) -> Limits:
    """Take bytes from limits.

    Args:
        limits: Limits by cost.
        size: Bytes.

    Returns:
        The limits; as they are where bytes are not limited.
    """
    return {**limits, BYTES: limits[BYTES] - size} if BYTES in limits else limits


def is_worth_its_room(coded: Settled, scalar: Settled) -> bool:
    """Tell whether a plan that is coded promises to lose less than one that has the bytes of decoding for its weights.

    Args:
        coded: The plan that leaves them free.
        scalar: The plan in all bytes.

    Returns:
        True where both the scores and the measured losses say so.
    """
    return all(
        (1 - _GAIN) * tight < whole for tight, whole in zip(_losses(coded), _losses(scalar), strict=True)
    )


def to_be_coded(
    layers: Sequence[Layer], choice: Choice, problem: PlanProblem, room: TrellisRoom
) -> frozenset[str]:
    """Find the layers of a plan that are coded anew: those that gain more than the bytes of decoding would elsewhere.

    Args:
        layers: All layers.
        choice: What was decided.
        problem: Scores of layers.
        room: Layers that may be coded.

    Returns:
        Their names.
    """
    losses = {
        row.name: problem.scores[row.name].get(row.width, 0.0)
        if row.expected_loss is None
        else row.expected_loss
        for row in choice.plan.layers
    }
    a_byte = _A_BYTE * sum(losses.values()) / sum(layer.parameters for layer in layers)
    found = {
        layer.name: layer.parameters
        for layer in layers
        if layer.name in room.layers
        and layer.name in choice.weights
        and choice.placement.forms[layer.name] in _FOLDED
        and can_be_coded(layer, choice.weights[layer.name])
        and _GAIN * losses[layer.name] >= a_byte * room.layers[layer.name]
    }
    return frozenset(found if 8 * room.of(found) <= _SAVED * sum(found.values()) else ())


def code_layers(
    job: Prepared,
    spec: QuantizeSpec,
    layers: Sequence[Layer],
    weights: Mapping[str, QuantizedWeight],
    samples: Samples,
    kept: KeptMoments,
    on_progress: Tell,
) -> dict[str, QuantizedWeight]:
    """Code layers by the moments of their inputs in the float network.

    Args:
        job: The prepared job.
        spec: The request.
        layers: The layers.
        weights: Layer name -> scalar codes.
        samples: Samples that moments are taken from where none are held.
        kept: Moments that are.
        on_progress: Called with the fraction done and a message; may raise to stop.

    Returns:
        Layer name -> codes; scalar ones where a trellis loses no less.
    """
    moments = kept.find(layers)
    found = _coded(
        job, spec, [layer for layer in layers if layer.name in moments], weights, moments, on_progress
    )
    for layer in layers:
        if layer.name not in found:  # one by one: what was not held would not fit beside others either
            seen = input_moments(job.network, [layer], samples, seed=spec.seed)
            found |= _coded(job, spec, [layer], weights, seen, on_progress)
    return found


def _coded(
    job: Prepared,
    spec: QuantizeSpec,
    layers: Sequence[Layer],
    weights: Mapping[str, QuantizedWeight],
    moments: Mapping[str, Moments],
    on_progress: Tell,
) -> dict[str, QuantizedWeight]:
    found = {}
    for layer in layers:
        on_progress(0.0, f"trellis codes of {layer.name}")
        found[layer.name] = trellis_coded(
            layer,
            stored_tensor(job.model, layer.weight).numpy(),
            weights[layer.name],
            moments[layer.name],
            find_bias(job.model, layer) if spec.bias_correction else None,
            descent=spec.descent,
        )
    return found


def _losses(settled: Settled) -> tuple[float, float]:
    """The loss of a plan by the scores, and as it was measured."""
    foretold = settled.plan.predicted_loss
    return foretold, next((trial.measured_loss for trial in settled.trials if trial.chosen), foretold)
