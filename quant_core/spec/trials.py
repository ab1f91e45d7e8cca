"""What was tried before a plan was settled: rival plans, rounds of refinement, files held against an accuracy band."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from quant_core.spec.budget import AccuracyBand


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class PlanTrial(_Value):
    """One plan whose loss was measured on calibration samples with the weights rounded.

    Attributes:
        name: What it is: `optimal`, `uniform 5 bits`, `refined`.
        predicted_loss: Sum of the expected loss increases.
        measured_loss: Mean loss increase over the samples, all layers rounded at once.
        stderr: Standard error of `measured_loss` over the samples; null for a single one.
        bytes: Predicted size of its file.
        effective_bits: Mean bits over all quantizable weights.
        samples: Samples it was measured on.
        chosen: Whether it became the result.
    """

    name: str
    predicted_loss: float
    measured_loss: float
    stderr: float | None
    bytes: int
    effective_bits: float
    samples: int
    chosen: bool


class LayerMove(_Value):
    """A layer that refinement gave other bits.

    Attributes:
        name: The layer.
        before: Its bits before.
        after: Its bits after.
    """

    name: str
    before: int
    after: int


class RefinementRound(_Value):
    """One round of measuring every layer one width up and down around the plan.

    Attributes:
        neighbours: Plans measured that differ from the present one in one layer or tie group.
        tried: Whole plans measured because their neighbours promised a fall.
        before: Measured loss increase at its start.
        after: Measured loss increase at its end.
        moves: Layers that changed; none if nothing lowered the measured loss.
    """

    neighbours: int
    tried: int
    before: float
    after: float
    moves: tuple[LayerMove, ...]


class BandEvaluation(_Value):
    """One quantized file held against the band.

    Attributes:
        bytes: Size of the file.
        predicted_loss: Predicted loss increase of its plan.
        effective_bits: Mean bits over all quantizable weights.
        value: The band's metric, measured in onnxruntime.
        low: Lower end of the 95 % confidence interval of `value`.
        high: Upper end.
        expected: For a drop of top-1 accuracy, what the float model's probabilities say of it; it has much less chance
            in it than counted answers. Null for other metrics.
        bound: How bad it may be among all samples, at the confidence that was asked for: the end of a one-sided
            interval of `expected`, or of `value` where there is none. Null where there are too few samples for any.
        inside: Whether `value`, and `expected` and `bound` where there are any, lie in the band.
    """

    bytes: int
    predicted_loss: float
    effective_bits: float
    value: float
    low: float
    high: float
    expected: float | None = None
    bound: float | None = None
    inside: bool


class BandSearch(_Value):
    """The search for the smallest file inside an accuracy band.

    Attributes:
        band: What was asked.
        samples: Samples each file was run on; they decided nothing before, and the report's metrics use others.
        labelled: Whether a drop is one of top-1 accuracy; else it is the share of samples answered differently.
        evaluations: Every file measured, in order.
        chosen: Position of the result among them.
        confidence: How sure it is that the result keeps the band among all samples, where it was met.
        met: Whether the result was shown to keep the band.
        reason: How the search ended, in words.
    """

    band: AccuracyBand
    samples: int
    labelled: bool
    evaluations: tuple[BandEvaluation, ...]
    chosen: int
    confidence: float
    met: bool
    reason: str
