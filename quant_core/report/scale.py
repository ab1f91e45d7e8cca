"""Where a value of unknown magnitude stands on an axis: logarithmic, and around zero linear where needed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_MOST_TICKS = 6
_FEWEST_TICKS = 3
_LARGEST_POWER = 40
_DECADES_BELOW = 4
"""How many powers of ten below the largest value are told apart from zero on a signed scale."""


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis, or a signed one that is linear around zero.

    Positive values stand at log10(v). Once a value is zero or negative, all stand at asinh(v / 2c) / ln 10, which is
    log10(v / c) far from zero; c is the size of the most negative value, the noise of the estimates.

    Attributes:
        low: Smallest value; at most zero on a signed axis.
        high: Largest value; at least zero on a signed axis.
        linear: The c of a signed axis; 0 for a logarithmic one.
    """

    low: float
    high: float
    linear: float

    def place(self, value: float) -> float:
        """Give the position of a value.

        Args:
            value: Any number on a signed axis; on a logarithmic one, what is not positive stands at the lower end.

        Returns:
            Its coordinate on the axis.
        """
        if self.linear:
            return math.asinh(value / (2 * self.linear)) / math.log(10)
        return math.log10(value) if value > 0 else self.ends[0]

    @property
    def ends(self) -> tuple[float, float]:
        """Coordinates of both ends of the axis, with room around the values."""
        low, high = (
            (self.place(self.low), self.place(self.high)) if self.linear else _logs(self.low, self.high)
        )
        room = max(0.08 * (high - low), 0.15)
        return low - room, high + room

    def axis(self) -> dict[str, Any]:
        """Describe the axis.

        Returns:
            Range and ticks, as attributes of a linear plotly axis.
        """
        ticks = sorted(self._ticks())
        return {
            "range": list(self.ends),
            "tickvals": [self.place(tick) for tick in ticks],
            "ticktext": [_label(tick) for tick in ticks],
        }

    def _ticks(self) -> list[float]:
        low, high = self.ends
        chosen = [0.0] if self.linear else []
        # Powers of ten, the largest first; twos and fives only where there are too few.
        for factor in (1, 5, 2):
            if len(chosen) >= _FEWEST_TICKS:
                break
            for power in range(_LARGEST_POWER, -_LARGEST_POWER, -1):
                for tick in (factor * 10.0**power, -factor * 10.0**power):
                    place = self.place(tick) if self.linear or tick > 0 else -math.inf
                    apart = all(
                        abs(place - self.place(other)) > (high - low) / _MOST_TICKS for other in chosen
                    )
                    if low <= place <= high and apart:
                        chosen.append(tick)
        return chosen


def fit_scale(values: Iterable[float]) -> Scale:
    """Choose the scale that holds these values.

    Args:
        values: The values; may be empty.

    Returns:
        A logarithmic scale if all are positive, else a signed one.
    """
    held = list(values) or [1.0]
    low, high = min(held), max(held)
    if low > 0:
        return Scale(low, high, 0.0)
    largest = max(abs(low), abs(high)) or 1.0
    return Scale(min(low, 0.0), max(high, 0.0), max(-low, largest * 10.0**-_DECADES_BELOW))


def _logs(low: float, high: float) -> tuple[float, float]:
    return math.log10(low), math.log10(high)


def _label(value: float) -> str:
    power = math.floor(math.log10(abs(value)) + 1e-9) if value else 0
    if -3 <= power <= 3:
        return f"{value:g}".replace("-", "−")
    factor = round(abs(value) / 10.0**power)
    return f"{'−' if value < 0 else ''}{'' if factor == 1 else f'{factor}×'}10<sup>{power}</sup>"
