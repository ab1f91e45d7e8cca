"""What tables, bars and messages are printed to."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from bitwright.harmless import harmless


class Terminal(Console):
    """A console that prints no control characters but its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render something.

        Args:
            renderable: What to print.
            options: How.

        Yields:
            Pieces of text, and orders of rich's own.
        """
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)
