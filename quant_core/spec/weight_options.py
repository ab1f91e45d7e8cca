"""How weights become codes: the options that a quantization and an analysis have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Rounding = Literal["gptq", "foem", "reconstruction", "nearest"]


class WeightOptions(BaseModel):
    """How weights find their codes.

    Attributes:
        rounding: How weights find their codes. Layers are scored with the rounding that is exported; `reconstruction`
            tunes the codes of the chosen plan alone, and scores with GPTQ, which it starts from.
        foem_beta: Weight of the first-order term of `foem`; 0 is GPTQ.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounding: Rounding = "gptq"
    foem_beta: float = Field(default=0.05, ge=0, le=1)

    @property
    def scored_rounding(self) -> Rounding:
        """The rounding that layers are scored with."""
        return "gptq" if self.rounding == "reconstruction" else self.rounding
