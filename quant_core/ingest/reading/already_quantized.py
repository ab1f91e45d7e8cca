"""Refuse models that are quantized already, unless they are to be kept so."""

from __future__ import annotations

from collections.abc import Sequence

from quant_core.errors import AlreadyQuantizedError, name_some
from quant_core.ingest.reading.quantized_parts import QuantizedPart

_SHOWN = 3


def refuse_quantized(parts: Sequence[QuantizedPart], where: str) -> None:
    """Refuse a model that holds quantized parts.

    Args:
        parts: What was found.
        where: The model file for messages.

    Raises:
        AlreadyQuantizedError: If there is one; the message names the first.
    """
    if parts:
        raise AlreadyQuantizedError(
            f"the model is already quantized: it holds {name_some(parts, _SHOWN)}.",
            remedy="Give the float model that it was made from, or ask to keep these parts as they are: "
            "quantized_parts=keep (--keep-quantized).",
            where=where,
        )
