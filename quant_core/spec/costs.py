"""What every layer costs at every bit-width: with the sensitivity table, all that a new plan needs."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from quant_core.spec.bits import FLOAT_BITS
from quant_core.spec.width import stored_of, weight_of

FusionKind = Literal["shared_input", "residual", "depthwise", "shared_weight"]
FUSION_KINDS: tuple[FusionKind, ...] = get_args(FusionKind)


class FusionGroup(BaseModel):
    """Layers that a runtime may fuse or run on one scale.

    Attributes:
        kind: `shared_input`, `residual`, `depthwise` or `shared_weight`.
        layers: Layer names, in graph order.
        tied: Whether they had to choose alike.
    """

    model_config = ConfigDict(frozen=True)

    kind: FusionKind
    layers: tuple[str, ...]
    tied: bool = False


class LayerCosts(BaseModel):
    """One layer's row.

    Attributes:
        name: The layer.
        weight: Its weight tensor.
        op: Operator type.
        parameters: Number of weight elements.
        macs: Multiply-accumulates per sample.
        bits: Bits it may be given, rising. Where activations are open these are widths, as are all keys below: 1604
            is a weight of 4 bits on activations of 16. Where outliers are open, so is 1500004: 4 bits, 1.5 % outliers.
        reason: The rules that narrowed them, in words; null where none did.
        bytes: Bits -> bytes of its weight in the file.
        activation_bits: Bits -> bits of its input; 32 is float.
        effective_bits: Bits -> bits of a weight with its share of its block's scale and zero point, and of outliers.
        latency: Bits -> milliseconds a run; null without a latency table.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    weight: str
    op: str
    parameters: int
    macs: int
    bits: tuple[int, ...]
    reason: str | None = None
    bytes: dict[int, int]
    activation_bits: dict[int, int]
    effective_bits: dict[int, float] = {}
    latency: dict[int, float] | None = None

    @model_validator(mode="after")
    def _priced(self) -> LayerCosts:
        tables = {"bytes": self.bytes, "activation_bits": self.activation_bits, "latency": self.latency}
        for name, table in tables.items():
            if table is not None and (missing := [bits for bits in self.bits if bits not in table]):
                raise ValueError(f"{self.name} may be given {missing[0]} bits, for which {name} has no entry")
        return self

    def effective(self, bits: int) -> float:
        """Give the bits of a weight with its share of what its block stores and of outliers.

        Args:
            bits: Bits of the code.

        Returns:
            Bits a weight.
        """
        return self.effective_bits.get(stored_of(bits), float(weight_of(bits)))

    def bops(self, bits: int) -> float:
        """Give the bit operations a sample: MACs x weight bits x activation bits.

        Args:
            bits: Bits of the weight.

        Returns:
            Their number.
        """
        return float(self.macs * weight_of(bits) * self.activation_bits[bits])


class MemoryStep(BaseModel):
    """What one step of a run holds at once, for one sample.

    Attributes:
        node: The node that runs.
        fixed: Bytes of tensors that no layer's activation bits say anything about.
        elements: Layer -> elements of the tensors that have its activation bits.
    """

    model_config = ConfigDict(frozen=True)

    node: str
    fixed: int = 0
    elements: dict[str, int]


class CostTable(BaseModel):
    """What any plan costs: a file is `base + sum of layers + functions of the widths in use`.

    Attributes:
        version: Version of this format.
        model: File name of the float model.
        float_bytes: Its bytes, which size ratios refer to.
        base: Bytes of everything but the weights.
        functions: Bits, or 10000 for outliers -> bytes of the function that unpacks them, stored once a file.
        zero_points: The most bytes that zero points of activations take beside `base`; a file has those it needs.
        ties: Groups of layers that must choose alike, by name.
        groups: Fusion groups of the graph.
        layers: One row a layer, in graph order.
        memory: The steps of a run that can hold the most activations; the peak of a plan is the largest of them.
        followed: Layers that are rounded again for what those before them give, so that plans are solved with what
            that leaves of the scores.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    model: str
    float_bytes: int
    base: int
    functions: dict[int, int]
    zero_points: int = 0
    ties: tuple[tuple[str, ...], ...] = ()
    groups: tuple[FusionGroup, ...] = ()
    layers: tuple[LayerCosts, ...]
    memory: tuple[MemoryStep, ...] = ()
    followed: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _known_layers(self) -> CostTable:
        names = set[str]()
        for layer in self.layers:
            if layer.name in names:
                raise ValueError(f"layer {layer.name} has two rows")
            names.add(layer.name)
        if stray := next((name for group in self.ties for name in group if name not in names), None):
            raise ValueError(f"{stray} is tied, and no layer has that name")
        return self

    @property
    def float_bops(self) -> float:
        """Bit operations a sample of the float model."""
        return float(sum(layer.macs for layer in self.layers)) * FLOAT_BITS**2

    @property
    def float_peak_memory(self) -> float:
        """Most bytes of activations that the float model holds at once, for one sample."""
        return max(
            (step.fixed + sum(step.elements.values()) * FLOAT_BITS / 8 for step in self.memory), default=0.0
        )
