"""Numbers as people read them."""

from __future__ import annotations

import math


def format_bytes(count: float) -> str:
    """Write a size with a decimal unit.

    Args:
        count: Bytes.

    Returns:
        Three significant digits and a unit, such as `196 KB`.
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if abs(count) >= size * 0.9995:
            return f"{_three_digits(count / size)} {unit}"
    return f"{count:.0f} B"


def format_count(count: float) -> str:
    """Write a count of parameters or operations.

    Args:
        count: The count.

    Returns:
        Three significant digits and `k`, `M` or `G`.
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= size * 0.9995:
            return f"{_three_digits(count / size)} {unit}"
    return f"{count:.0f}"


def format_share(value: float, digits: int = 2) -> str:
    """Write a share of one as a percentage.

    Args:
        value: The share.
        digits: Digits after the point.

    Returns:
        Such as `91.63 %`.
    """
    return f"{100 * value:.{digits}f} %"


def format_ms(milliseconds: float) -> str:
    """Write a duration.

    Args:
        milliseconds: The duration.

    Returns:
        Three significant digits in µs, ms or s.
    """
    if milliseconds >= 999.5:
        return f"{_three_digits(milliseconds / 1e3)} s"
    if milliseconds < 0.9995:
        return f"{_three_digits(milliseconds * 1e3)} µs"
    return f"{_three_digits(milliseconds)} ms"


def format_seconds(seconds: float) -> str:
    """Write a wall time.

    Args:
        seconds: The duration.

    Returns:
        Such as `0.4 s`, `12 s` or `3 min 20 s`.
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def format_loss(value: float | None, stderr: float | None = None) -> str:
    """Write a loss, a trace or any number of unknown magnitude.

    Args:
        value: The number; None becomes a dash.
        stderr: Its standard error, if known.

    Returns:
        Such as `0.0123`, `4.56e-7` or `310 ± 12`.
    """
    if value is None:
        return "–"
    text = _any_magnitude(value)
    return text if not stderr else f"{text} ± {_any_magnitude(stderr, digits=2)}"


def _any_magnitude(value: float, digits: int = 3) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e5:
        return f"{float(f'{value:.{digits}g}'):,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(power)}"


def _three_digits(value: float) -> str:
    return f"{value:.{2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0}f}"
