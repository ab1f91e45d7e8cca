"""The request for an analysis alone: sensitivities, without a plan or a file."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from quant_core.spec.budget import Budget
from quant_core.spec.number import Real, Whole
from quant_core.spec.request import Request
from quant_core.spec.share import Share
from quant_core.spec.shorthand import expand_budget


class AnalyzeSpec(Request):
    """One request for an analysis.

    The budgets by name are read as shorthand, as in a quantization: `{"size": 0.18}`.

    Attributes:
        budget: What plans made of it will be asked for. It limits nothing here: a quantization scales channels for the
            mean bits that its budget leaves, and scores hold for graphs that are scaled alike.
        held_back: Share of the samples that is left out, as a quantization of the same samples and seed leaves them out
            for verification; 0 leaves none out.
        activations: Whether to estimate activation traces as well.
        tolerance: Wanted relative standard error of each layer's share of the traces.
        probes: Most random probes; by default what about a minute of arithmetic on two cores allows.
        seconds: About how long estimates may take that can end early: all but `kfac`, `orm` and spectra. What they have
            by then counts; the same seed then gives the same table only by chance.
        samples: Most samples; by default all for probes, and for measured methods what about a minute allows.
    """

    budget: Budget = Budget()
    held_back: Share = Field(default=0.25, ge=0, lt=1)
    activations: bool = False
    tolerance: Share = Field(default=0.05, gt=0, lt=1)
    probes: Whole | None = Field(default=None, ge=1)
    seconds: Real | None = Field(default=None, gt=0, allow_inf_nan=False)
    samples: Whole | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _expand_short(cls, data: Any) -> Any:
        return expand_budget(data) if isinstance(data, dict) else data
