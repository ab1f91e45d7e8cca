"""Where a job is, told to whoever listens, and how long each stage took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from quant_core.spec import Progress, ProgressCallback, Stage, Timing
from quant_core.spec.progress import Tell


@dataclass
class Journal:
    """Progress and timings of one job.

    Attributes:
        on_progress: Told where the job is; may raise to stop it.
        seconds: Wall seconds by stage.
    """

    on_progress: ProgressCallback | None = None
    seconds: dict[Stage, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Count what happens within to a stage.

        Args:
            stage: The stage.

        Yields:
            Nothing.
        """
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def tell(self, stage: Stage, fraction: float, message: str) -> None:
        """Tell where the job is.

        Args:
            stage: The stage at work.
            fraction: How much of it is done.
            message: What it is doing.
        """
        if self.on_progress is not None:
            self.on_progress(Progress(stage=stage, fraction=min(1.0, fraction), message=message))

    def tells(self, stage: Stage) -> Tell:
        """Tell of one stage.

        Args:
            stage: The stage.

        Returns:
            What takes fractions and messages.
        """
        return lambda fraction, message: self.tell(stage, fraction, message)

    @property
    def timings(self) -> tuple[Timing, ...]:
        """Wall seconds by stage, for the report."""
        return tuple(Timing(stage=stage, seconds=seconds) for stage, seconds in self.seconds.items())
