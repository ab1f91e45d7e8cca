"""Bars that show what the engine does, and how they are left."""

from __future__ import annotations

import signal

import pytest
from rich.console import Console

from bitwright.cli.stages import StageBars
from quant_core.spec import Progress


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_that_was_dropped_is_raised_again_at_the_next_step(
    number: signal.Signals, error: type[BaseException]
) -> None:
    before = signal.getsignal(number)
    step = Progress(stage="rounding", fraction=0.5, message="a layer")
    with StageBars(Console(quiet=True)) as bars:
        bars(step)
        with pytest.raises(error):
            signal.raise_signal(number)
        with pytest.raises(error):
            bars(step)
    assert signal.getsignal(number) is before
