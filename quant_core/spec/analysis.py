"""The request for an analysis alone: sensitivities, without a plan or a file."""

from __future__ import annotations

from pydantic import Field

from quant_core.spec.request import Request


class AnalyzeSpec(Request):
    """One request for an analysis.

    Attributes:
        activations: Whether to estimate activation traces as well.
        tolerance: Wanted relative standard error of each layer's share of the traces.
        probes: Most random probes; by default what about a minute of arithmetic on two cores allows.
        seconds: About how long estimates may take that can end early: all but `kfac`, `orm` and spectra. What they have
            by then counts; the same seed then gives the same table only by chance.
        samples: Most samples; by default all for probes, and for measured methods what about a minute allows.
    """

    activations: bool = False
    tolerance: float = Field(default=0.05, gt=0, lt=1)
    probes: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    samples: int | None = Field(default=None, ge=1)
