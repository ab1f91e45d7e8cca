"""Which bits each layer may be given: the request's candidates narrowed by its rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quant_core.allocation.unmatched_rule import refuse_unmatched
from quant_core.errors import SpecError
from quant_core.spec import WEIGHT_BITS, LayerRule, QuantizeSpec, format_bits

if TYPE_CHECKING:  # a new plan from cached tables need not load the graph's machinery
    from quant_core.ingest.layer import Layer


@dataclass(frozen=True)
class Candidates:
    """What one layer may be given.

    Attributes:
        bits: Allowed bits, rising.
        reason: The rule that narrowed them, in words; None where only the budget decides.
    """

    bits: tuple[int, ...]
    reason: str | None


def candidate_bits(layers: Sequence[Layer], spec: QuantizeSpec) -> Mapping[str, Candidates]:
    """Apply the rules of a request.

    A pin may name bits that are not among the request's candidates; several rules on one layer must all hold.

    Args:
        layers: The model's layers.
        spec: The request.

    Returns:
        Layer name -> candidates.

    Raises:
        SpecError: If rules contradict each other; all such layers are named.
    """
    refuse_unmatched(spec.rules, layers)
    result = {layer.name: _candidates(layer, spec) for layer in layers}
    empty = [name for name, candidates in result.items() if not candidates.bits]
    if empty:
        rules = {
            number: _describe(rule)
            for number, rule in enumerate(spec.rules)
            if rule.narrows and any(rule.matches(layer) for layer in layers if layer.name in empty)
        }
        raise SpecError(
            f"no bit-width is left for {', '.join(empty)}: {'; '.join(rules.values())} contradict each other or bits.",
            remedy="Drop one of these rules.",
            where=f"rules.{max(rules)}",
        )
    return result


def with_activation_bits(layers: Sequence[Layer], spec: QuantizeSpec) -> tuple[Layer, ...]:
    """Note on each layer the activation bits that rules give it.

    Args:
        layers: The model's layers.
        spec: The request.

    Returns:
        The layers.

    Raises:
        SpecError: If rules give one layer different activation bits.
    """
    noted = []
    for layer in layers:
        rules = [rule for rule in spec.rules if rule.activation_bits is not None and rule.matches(layer)]
        if len({rule.activation_bits for rule in rules}) > 1:
            told = "; ".join(
                f"{format_bits(rule.activation_bits or 0)} activations by rule {rule.match!r}"
                for rule in rules
            )
            raise SpecError(
                f"{layer.name} cannot have both: {told}.",
                remedy="Drop one of these rules.",
                where=f"rules.{spec.rules.index(rules[-1])}",
            )
        noted.append(replace(layer, activation_bits=rules[0].activation_bits) if rules else layer)
    return tuple(noted)


def _candidates(layer: Layer, spec: QuantizeSpec) -> Candidates:
    rules = [rule for rule in spec.rules if rule.narrows and rule.matches(layer)]
    fixed = any(rule.pin is not None or rule.exclude for rule in rules)
    pool = WEIGHT_BITS if fixed else spec.weight_bits
    bits = tuple(b for b in pool if all(rule.allows(b) for rule in rules))
    return Candidates(bits, "; ".join(map(_describe, rules)) or None)


def _describe(rule: LayerRule) -> str:
    return f"{rule.effect} by rule {rule.match!r}"
