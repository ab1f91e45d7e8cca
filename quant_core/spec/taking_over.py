"""A request that takes over the sensitivities of an earlier job."""

from __future__ import annotations

from quant_core.errors import SpecError
from quant_core.spec.request import QuantizeSpec
from quant_core.spec.sensitivity import SensitivityTable

_NOT_OF_JOBS = "orm"
"""A method of analyses alone, which scores no bits."""


def taking_over(spec: QuantizeSpec, table: SensitivityTable) -> QuantizeSpec:
    """Have a request ask for what sensitivities were estimated with, where it does not say itself.

    The method is what reports name, and the seed tells which samples are held back: with another one, samples that
    scored the layers would judge the file.

    Args:
        spec: The request.
        table: The sensitivities.

    Returns:
        The request with the method and the seed of the table.

    Raises:
        SpecError: If it asks for another method or seed.
    """
    found = {"sensitivity": table.method, "seed": table.seed}
    for field, value in found.items():
        asked = getattr(spec, field)
        if field in spec.model_fields_set and asked != value:
            raise SpecError(
                f"the sensitivities to take over were estimated with {field} {value}, and {asked} is asked.",
                remedy=f"Leave {field} out, or estimate them again from model and samples.",
                where=field,
            )
    if table.method == _NOT_OF_JOBS:
        del found["sensitivity"]
    return spec.model_copy(update=found)
