"""How weights become codes: the options that a quantization and an analysis have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from quant_core.spec.field_error import FieldError
from quant_core.spec.number import Real, Whole
from quant_core.spec.quoting import quote
from quant_core.spec.share import read_share
from quant_core.spec.weight_grid import (
    FORMAT_BITS,
    FORMAT_BLOCK,
    Granularity,
    WeightFormat,
    WeightGrid,
    WeightRange,
)

Effort = Literal["fast", "balanced", "best"]
Equalize = Literal["auto", "all", "none"]
Rounding = Literal["gptq", "foem", "adaround", "brecq", "qdrop", "reconstruction", "nearest", "stochastic"]

TUNED: frozenset[Rounding] = frozenset({"brecq", "qdrop", "reconstruction"})
"""Roundings that tune the codes of a chosen plan."""

AUTO_SHARES = (0.02,)
"""Shares of outliers that `auto` offers."""

_SMALLEST_SHARE, _LARGEST_SHARE = 0.0005, 0.1


def _known_share(value: Any) -> Any:
    """Read a share: `auto`, 0, or one that makes sense to store."""
    if value == "auto":
        return value
    try:
        share = float(read_share(value))
    except (TypeError, ValueError, OverflowError):
        share = float("nan")
    if share != 0 and not _SMALLEST_SHARE <= share <= _LARGEST_SHARE:
        raise ValueError(
            f"{quote(value)} is not a share of outliers; write auto, 0, or {_SMALLEST_SHARE} to {_LARGEST_SHARE} "
            "(0.05% to 10%)"
        )
    return share


Sparse = Annotated[float | Literal["auto"], BeforeValidator(_known_share)]

EFFORTS: Mapping[str, Mapping[str, str | bool]] = {
    "fast": {"descent": False, "equalize": "none", "follow": False, "mix_channels": False},
    "balanced": {},
    "best": {"rounding": "reconstruction"},
}
"""What each level asks for where the request itself says nothing."""


class WeightOptions(BaseModel):
    """How weights find their codes.

    Attributes:
        effort: What the options below are where they are not given: `fast` leaves channels, and codes of GPTQ, as they
            are, and scores layers on 32 samples at most; `balanced` takes the defaults, `best` scores on all samples in
            folds, and reconstructs (integer codes; formats are rounded by GPTQ).
        rounding: How weights find their codes. Layers are scored with the rounding that is exported; `brecq`, `qdrop`
            and `reconstruction` tune the codes of the chosen plan alone, and score with GPTQ, which they start from.
        foem_beta: Weight of the first-order term of `foem`; 0 is GPTQ.
        descent: Whether integer codes of GPTQ and FOEM are then improved one by one, by coordinate descent.
        sparse: Share of the weights of a layer that it may keep apart, 0.0005 to 0.1: outliers, which reach eight steps
            further than the others, so that these have smaller steps. Layers of 2 to 6 bits are then also offered
            with them, and the plan chooses where they pay. `auto` offers 2 %, 0 none.
        granularity: One scale for each tensor, channel, or block of consecutive inputs.
        block_size: Inputs in a block, 16 to 256.
        symmetric: Whether 0 has the code 0; else each scale of an integer grid has a zero point of its own.
        weight_format: What the candidate of a format's own width is: FP8 instead of 8-bit integers, NVFP4 or MXFP4
            instead of 4-bit ones. All other widths are integers.
        weight_range: How steps are chosen: by least squared error of the weight (`mse`), from its smallest and largest
            value (`minmax`), nearly so (`percentile`), or by least error of the layer's output under its inputs' second
            moments once GPTQ has found the codes (`hessian`; what GPTQ does not round takes `mse`).
        equalize: Where channels are scaled before rounding, if that promises less error; the float function stays as it
            is. `auto`: before layers whose input is rounded at run time, beside float operators and before depthwise
            convolutions; `all`: between layers with calibrated inputs as well; `none`: nowhere.
        bias_correction: Whether biases make up for what rounding weights adds to a layer's mean output, and rounding
            activations where that helps on samples; not for `nearest`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    effort: Effort = "balanced"
    rounding: Rounding = "gptq"
    foem_beta: Real = Field(default=0.05, ge=0, le=1)
    descent: bool = True
    sparse: Sparse = 0.0
    granularity: Granularity = "channel"
    block_size: Whole = Field(default=32, ge=16, le=256)
    symmetric: bool = True
    weight_format: WeightFormat = "int"
    weight_range: WeightRange = "hessian"
    equalize: Equalize = "auto"
    bias_correction: bool = True

    @model_validator(mode="before")
    @classmethod
    def _expand_effort(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(effort := data.get("effort"), str):
            return data
        asked = {name: value for name, value in EFFORTS.get(effort, {}).items() if name in cls.model_fields}
        if asked.get("rounding") in TUNED and data.get("weight_format", "int") != "int":
            del asked["rounding"]
        return asked | data

    @model_validator(mode="after")
    def _codes_can_be_tuned(self) -> Self:
        if self.rounding in {*TUNED, "adaround"} and self.weight_format != "int":
            raise FieldError(
                ("rounding",),
                f"rounding {self.rounding} tunes integer codes, and {self.weight_format} has none; round by gptq",
            )
        return self

    @model_validator(mode="after")
    def _outliers_have_steps(self) -> Self:
        if not self.sparse:
            return self
        if self.granularity == "block" or self.weight_format != "int":
            raise FieldError(
                ("sparse",),
                "sparse keeps outliers of integers of channels or tensors apart; the steps of blocks and formats reach "
                "them: leave sparse out, or ask for granularity channel and weight_format int",
            )
        if self.by_value:
            raise FieldError(
                ("sparse",),
                f"sparse finds outliers by GPTQ's errors, and rounding {self.rounding} has none; round by gptq",
            )
        return self

    @property
    def outlier_shares(self) -> tuple[float, ...]:
        """Shares of the weights that layers may keep apart; empty where none."""
        return AUTO_SHARES if self.sparse == "auto" else (self.sparse,) if self.sparse else ()

    @property
    def by_value(self) -> bool:
        """Whether each weight is rounded by itself, without a look at samples."""
        return self.rounding in {"nearest", "stochastic"}

    @property
    def scored_rounding(self) -> Rounding:
        """The rounding that layers are scored with."""
        return "gptq" if self.rounding in TUNED else self.rounding

    @property
    def turned_steps(self) -> bool:
        """Whether steps may be negative, as onnxruntime's kernels take them."""
        return True

    @property
    def scored_as(self) -> str:
        """The rounding and the grids that layers are scored with; sensitivities of others do not count.

        The sign of steps is left out: it lowers the error of all layers of one width much alike, so that an analysis
        serves every target.
        """
        grids = [] if self.granularity == "channel" else [f"{self.granularity} scales"]
        if self.granularity == "block":
            grids = [f"blocks of {self.block_size}"]
        grids += [] if self.symmetric else ["zero points"]
        grids += [] if self.weight_format == "int" else [self.weight_format]
        return ", ".join([self.scored_rounding, *grids])

    def grid(self, bits: int) -> WeightGrid:
        """Give the grid of a candidate.

        Args:
            bits: Its width.

        Returns:
            The grid that weights of this width are rounded to.
        """
        if FORMAT_BITS.get(self.weight_format) == bits:
            block = FORMAT_BLOCK.get(self.weight_format)
            granularity = self.granularity if block is None else "block"
            return WeightGrid(
                granularity,
                block or self.block_size,
                format=self.weight_format,
                range_search=self.weight_range,
            )
        return WeightGrid(
            self.granularity,
            self.block_size,
            self.symmetric,
            range_search=self.weight_range,
            turned=self.turned_steps,
        )
