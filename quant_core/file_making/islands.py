"""What float islands are once they are found, and what they tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_NEXT_TO_WEIGHTS = 0.05
"""Share of the weights' loss below which rounded activations lose next to nothing beside them."""
_LOST = 0.01
"""Share of the harmless loss that is next to none."""


@dataclass(frozen=True)
class Islands:
    """Layers that run in float although the request says 8 bits.

    Attributes:
        shares: Layer name -> share of the loss of all rounded activations that went when it joined.
        before: Loss increase of 8-bit activations everywhere, the weights in float.
        after: The same with the islands.
        time: Share of the file's estimated time that they add.
        harmless: Loss increase that is left alone; 0 where none was measured.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    before: float = 0.0
    after: float = 0.0
    time: float = 0.0
    harmless: float = 0.0

    def reason(self, layer: str) -> str | None:
        """Say why a layer runs in float.

        Args:
            layer: Its name.

        Returns:
            The reason; None if it is no island.
        """
        if layer not in self.shares:
            return None
        return (
            f"kept float: with its activations in 8 bits the network loses {self.shares[layer]:.0%} of what "
            "all rounded activations lose"
        )

    def harmless_beside(self, weights: float) -> bool:
        """Tell whether rounded activations lose next to nothing.

        Args:
            weights: Loss increase of the rounded weights.

        Returns:
            True if what all of them lose was measured, and is less than a twentieth of that.
        """
        return 0 < self.before < _NEXT_TO_WEIGHTS * weights

    def nothing_lost(self, weights: float) -> bool:
        """Tell whether the file is as good as the float network.

        Args:
            weights: Loss increase of the rounded weights.

        Returns:
            True if weights and activations together lose less than 0.0001 nats, or 40 dB below the output.
        """
        return weights + self.after < _LOST * self.harmless

    @property
    def note(self) -> str:
        """What the user should know."""
        counted = "1 layer runs" if len(self.shares) == 1 else f"{len(self.shares)} layers run"
        return (
            f"{counted} in float on packed weights ({', '.join(self.shares)}), for an estimated {self.time:.0%} more "
            f"time: rounded activations raise the loss by {self.after:.3g} instead of {self.before:.3g}. "
            "float_islands bounds this time, and 0 keeps every layer in integers."
        )
