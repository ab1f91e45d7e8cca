"""What a user may say about single layers."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from quant_core.spec.activation_bits import read_one_of
from quant_core.spec.bits import FLOAT_BITS, WIDE_BITS, Bits, format_bits, known_bits
from quant_core.spec.width import KERNEL_BITS


def _known_activations(bits: Any) -> int | None:
    return None if bits is None else read_one_of((KERNEL_BITS, WIDE_BITS, FLOAT_BITS), bits)


class Named(Protocol):
    """What a rule can match a layer by."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def weight(self) -> str:
        """Its weight's name."""

    @property
    def op(self) -> str:
        """Its operator type."""


class LayerRule(BaseModel):
    """Pin, exclude, or limit the bits of the layers that match, or give their activations bits of their own.

    Attributes:
        match: A layer name, a weight name, a glob over either, or an operator type such as `Conv`.
        pin: The only bit-width allowed.
        exclude: Keep the layer in float.
        min_bits: The fewest bits allowed.
        max_bits: The most bits allowed.
        activation_bits: 8; 16: the layer runs in float on an input rounded to 16 bits, with packed weights; or 32
            (`"float"`): it runs in float on what it is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str = Field(min_length=1)
    pin: Bits | None = None
    exclude: bool = False
    min_bits: Bits | None = None
    max_bits: Bits | None = None
    activation_bits: Annotated[
        Literal[8, 16, 32] | None,
        BeforeValidator(_known_activations, json_schema_input_type=Literal[8, 16, 32, "float"] | None),
    ] = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        limited = self.min_bits is not None or self.max_bits is not None
        kinds = (self.pin is not None) + self.exclude + limited
        if kinds > 1 or (kinds == 0 and self.activation_bits is None):
            raise ValueError(
                f"rule {self.match!r} must do exactly one of pin, exclude, or limit (min_bits, max_bits); "
                "activation_bits may stand beside pin or limits, or alone"
            )
        if self.activation_bits is not None and (self.exclude or self.pin == FLOAT_BITS):
            raise ValueError(
                f"rule {self.match!r} keeps layers in float, where activations are float: leave activation_bits out"
            )
        if self.pin is not None:
            known_bits(self.pin)
        if (self.min_bits or 0) > (self.max_bits or FLOAT_BITS):
            raise ValueError(f"rule {self.match!r} has min_bits above max_bits")
        return self

    def matches(self, layer: Named) -> bool:
        """Tell whether a layer falls under this rule.

        Args:
            layer: The layer.

        Returns:
            True if the rule applies.
        """
        return self.match in {layer.name, layer.weight, layer.op} or any(
            fnmatchcase(text, self.match) for text in (layer.name, layer.weight)
        )

    @property
    def narrows(self) -> bool:
        """Whether the rule says anything about the bits of the weight."""
        return self.exclude or any(bits is not None for bits in (self.pin, self.min_bits, self.max_bits))

    @property
    def effect(self) -> str:
        """What the rule does to a layer, in words."""
        activations = [f"{format_bits(self.activation_bits)} activations"] if self.activation_bits else []
        return " with ".join([*([self._weight_effect] if self.narrows else []), *activations])

    @property
    def _weight_effect(self) -> str:
        if self.exclude:
            return "excluded"
        if self.pin is not None:
            return f"pinned to {format_bits(self.pin)}"
        bounds = [f"at least {format_bits(self.min_bits)}"] if self.min_bits is not None else []
        bounds += [f"at most {format_bits(self.max_bits)}"] if self.max_bits is not None else []
        return f"limited to {' and '.join(bounds)}"

    def allows(self, bits: int) -> bool:
        """Tell whether a matching layer may have this many bits.

        Args:
            bits: One of `WEIGHT_BITS`.

        Returns:
            True if the choice is allowed.
        """
        if self.exclude:
            return bits == FLOAT_BITS
        if self.pin is not None:
            return bits == self.pin
        return (self.min_bits or 0) <= bits <= (self.max_bits or FLOAT_BITS)
