"""Rules that match no layer are refused with what may be meant."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from quant_core.errors import SpecError, name_some
from quant_core.spec import LayerRule
from quant_core.spec.layer_rule import Named

_SHOWN = 5


def refuse_unmatched(rules: Sequence[LayerRule], layers: Sequence[Named]) -> None:
    """Refuse rules that match nothing, with a glob or a name that would.

    Args:
        rules: The rules.
        layers: The layers.

    Raises:
        SpecError: If one matches no layer.
    """
    for number, rule in enumerate(rules):
        if not any(rule.matches(layer) for layer in layers):
            raise SpecError(
                f"rule {rule.match!r} matches no layer.",
                remedy="Name a layer, a weight, a glob over either, or an operator type; "
                f"{_hint(rule.match, layers)}",
                where=f"rules.{number}",
            )


def _hint(written: str, layers: Sequence[Named]) -> str:
    part = written.strip("*")
    holding = [layer.name for layer in layers if part and (part in layer.name or part in layer.weight)]
    if holding:
        return f"'*{part}*' matches {name_some(holding, _SHOWN)}."
    if near := get_close_matches(
        written, [text for layer in layers for text in (layer.name, layer.weight)], 1
    ):
        return f"did you mean {near[0]!r}?"
    return f"layers are {name_some([layer.name for layer in layers], _SHOWN)}."
