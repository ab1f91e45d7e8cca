"""Which representation a client prefers, by its Accept header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence


def preferred(accept: str, offers: Sequence[str]) -> str | None:
    """Choose among media types.

    Args:
        accept: The header.
        offers: Media types, the service's own favourite first.

    Returns:
        The type with the highest weight, the most precisely named and earliest where weights are equal; None if the
        client takes none.
    """
    ranges = [_range(item) for item in accept.lower().split(",")]
    ranked = [(_rank(offer, ranges), offer) for offer in offers]
    (weight, _), best = max(ranked, key=lambda pair: pair[0])
    return best if weight > 0 else None


def _range(item: str) -> tuple[str, float]:
    kind, *parameters = (part.strip() for part in item.split(";"))
    weights = [part.removeprefix("q=") for part in parameters if part.startswith("q=")]
    try:
        weight = float(weights[0]) if weights else 1.0
    except ValueError:
        weight = 0.0
    return kind, weight if 0 <= weight <= 1 else 0.0


def _rank(offer: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int]:
    """Weight of the most precise range that covers the offer, and how precise it is."""
    precision = {"*/*": 0, f"{offer.partition('/')[0]}/*": 1, offer: 2}
    covering = [(precision[kind], weight) for kind, weight in ranges if kind in precision]
    if not covering:
        return 0.0, -1
    precise, weight = max(covering)
    return weight, precise
