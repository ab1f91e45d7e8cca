"""What `debug` found: where a quantized file loses, and what more bits would give back."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class LayerFinding(BaseModel):
    """One layer of a quantized file.

    Attributes:
        name: The layer.
        op: Operator type.
        parameters: Number of weight elements.
        weight_bits: Bits of its weight; null where no report says so.
        narrow_bits: Bits of the output channels that matter least; null where all take `weight_bits`.
        sqnr_db: Of its output in the quantized network against the float network: the error of all layers up to here;
            null where the file computes other places or rows, such as those that rounding sends an expert.
        own_sqnr_db: Of its output with its stored weight against its float weight, both on the quantized network's
            input: the error that its weight adds.
        float_gain_db: What the output's SQNR gains with this layer's weight in float; null where it was not measured.
        byte_gain_db: The same with its weight at 8 bits, rounded to the nearest codes; null as well where a report says
            that it has 8 bits or more.
        share: Share of the output's squared error that goes with the weight in float; below 0 where errors cancelled.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    op: str
    parameters: int
    weight_bits: int | None
    narrow_bits: int | None = None
    sqnr_db: float | None
    own_sqnr_db: float
    float_gain_db: float | None = None
    byte_gain_db: float | None = None
    share: float | None = None


class Debugging(BaseModel):
    """Where a quantized file loses.

    Attributes:
        version: Version of this format.
        model: The float file.
        quantized: The quantized one.
        output: The outputs that were compared: all that hold floats, by name.
        samples: Samples that were run.
        output_sqnr_db: The output's SQNR against the float model; of several, that of their mean shares of error.
        layers: The layers found in the file, the worst first: by gain where it was measured, then by own SQNR.
        not_found: Layers that no node of the file stands for, or whose kernel takes no other weight.
    """

    model_config = ConfigDict(frozen=True)

    version: int = 1
    model: str
    quantized: str
    output: str
    samples: int
    output_sqnr_db: float
    layers: tuple[LayerFinding, ...]
    not_found: tuple[str, ...]
