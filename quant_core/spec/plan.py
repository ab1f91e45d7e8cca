"""The chosen plan and every non-dominated one."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from quant_core.spec.width import width_of


class LayerPlan(BaseModel):
    """One layer's share of the plan.

    Attributes:
        name: The layer.
        bits: Bits of its weight; 32 is float.
        activation_bits: Bits of its activations where they were open; null elsewhere.
        sparse: Share of its weights that are kept apart from the others, which take `bits`; null where none are.
        narrow_bits: Bits of the output channels that matter least; null where all take `bits`.
        narrow_share: Share of the channels that these are.
        expected_loss: Expected loss increase where channels take two widths; null elsewhere.
        reason: Why: budget, pinned, excluded, limited, tied, unsupported, non-finite; in words.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    bits: int
    activation_bits: int | None = None
    sparse: float | None = None
    narrow_bits: int | None = None
    narrow_share: float = 0.0
    expected_loss: float | None = None
    reason: str

    @property
    def width(self) -> int:
        """All of it in one number."""
        return width_of(self.bits, self.activation_bits, self.sparse or 0.0)


class BitPlan(BaseModel):
    """Bits for every layer.

    Attributes:
        layers: One entry a layer, in graph order.
        predicted_loss: Sum of the expected loss increases.
        predicted_bytes: Size of the file this plan should give.
        budget_bytes: The limit it was solved under; null if the size was left free.
        optimal: Whether the solver proved that no plan does better by the scores it was solved with: those of the
            predicted loss, or what rounding that follows leaves of them.
        gap: The most by which a better plan can lie below this one in that, relative to it; 0 when optimal, null where
            no bound is known.
        solver: What found it.
        costs: Other costs by name: `effective_bits`, `bops` and `peak_memory` (bytes) a sample, `latency` in ms.
        limits: Limits on them.
    """

    model_config = ConfigDict(frozen=True)

    layers: tuple[LayerPlan, ...]
    predicted_loss: float
    predicted_bytes: int
    budget_bytes: int | None
    optimal: bool
    gap: float | None = None
    solver: str
    costs: dict[str, float] = {}
    limits: dict[str, float] = {}

    @property
    def bits(self) -> dict[str, int]:
        """Bits of the weights by layer name."""
        return {layer.name: layer.bits for layer in self.layers}

    @property
    def widths(self) -> dict[str, int]:
        """Widths by layer name: bits of the weights, with those of activations and outliers where they were open."""
        return {layer.name: layer.width for layer in self.layers}


class ParetoPoint(BaseModel):
    """One non-dominated plan.

    Attributes:
        bytes: Predicted file size.
        predicted_loss: Predicted loss increase.
        bits: Bits of the weight per layer, in the order of the front's `layers`.
        activation_bits: Bits of the activations per layer, null where they were not open; empty where none were.
        sparse: Share of the weights kept apart per layer; empty where none are anywhere.
    """

    model_config = ConfigDict(frozen=True)

    bytes: int
    predicted_loss: float
    bits: tuple[int, ...] = ()
    activation_bits: tuple[int | None, ...] = ()
    sparse: tuple[float, ...] = ()


class ParetoFront(BaseModel):
    """Every non-dominated plan, smallest file first.

    Attributes:
        version: Version of this format.
        layers: Layer names, the order of each point's `bits`.
        points: Bytes rise and predicted loss falls strictly from point to point.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    layers: tuple[str, ...]
    points: tuple[ParetoPoint, ...]
