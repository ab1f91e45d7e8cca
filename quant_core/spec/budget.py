"""What a result may cost: size, effective bits, bit operations, memory, latency, and how much worse it may be."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from quant_core.spec.field_error import FieldError
from quant_core.spec.number import Real
from quant_core.spec.quoting import quote
from quant_core.spec.share import read_share

DEFAULT_SIZE = 0.25
"""The size budget of a request that names no budget at all."""

CONFIDENCE = 0.95
"""How sure it must be that a result keeps its accuracy band, of a request that does not say."""

_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_SMALLEST_FILE = 100
"""Bytes: a file of one node with names and types takes more."""
_OPERATIONS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15}
_NUMBER = r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)"


def parse_size(value: Any) -> Any:
    """Read a size such as `0.18`, `200000` or `"2.5MB"`.

    Args:
        value: A ratio of the float file (at most 1), a number of bytes, or text with a unit.

    Returns:
        The ratio or the number of bytes as a number; anything else unchanged, for pydantic to refuse.

    Raises:
        ValueError: If text cannot be read as a size.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(rf"\s*{_NUMBER}\s*(%|(?:[kmg]i?)?b)?\s*", value, re.IGNORECASE)
    if match is None:
        raise ValueError(
            f"cannot read {value!r} as a size; write a ratio such as 0.18 or bytes such as 2.5MB"
        )
    number, unit = float(match[1]), (match[2] or "").lower()
    if unit == "%":
        return _share(number, value)
    if unit:
        size = number * _UNITS[unit]
        if size <= 1:
            raise ValueError(f"{value!r} is at most one byte")
        return size
    return number


def _share(percent: float, text: str) -> float:
    if percent > 100:
        raise ValueError(f"{text!r} is more than the float model itself; write at most 100%")
    return percent / 100


def parse_bops(value: Any) -> Any:
    """Read bit operations such as `0.05`, `3.5e9` or `"3.5G"`.

    Args:
        value: A share of the float model's (at most 1), a number of them, or text with a unit.

    Returns:
        The share or the number; anything else unchanged, for pydantic to refuse.

    Raises:
        ValueError: If text cannot be read as bit operations.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(rf"\s*{_NUMBER}\s*(%|[kmgtp]?)\s*(?:bops)?\s*", value, re.IGNORECASE)
    if match is None:
        raise ValueError(
            f"cannot read {value!r} as bit operations; write a share such as 5% or a number such as 3.5G"
        )
    if match[2] == "%":
        return _share(float(match[1]), value)
    return float(match[1]) * _OPERATIONS[match[2].lower()]


def parse_latency(value: Any) -> Any:
    """Read a latency such as `2.5`, `"2.5ms"` or `"800us"`.

    Args:
        value: Milliseconds, or text with a unit.

    Returns:
        Milliseconds; anything else unchanged, for pydantic to refuse.

    Raises:
        ValueError: If text cannot be read as a latency.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(rf"\s*{_NUMBER}\s*(us|ms|s)?\s*", value, re.IGNORECASE)
    if match is None:
        raise ValueError(f"cannot read {value!r} as a latency; write milliseconds such as 2.5ms")
    return float(match[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[(match[2] or "ms").lower()]


def parse_band(value: Any) -> Any:
    """Read an accuracy band such as `0.005`, `"0.5%"`, `"sqnr>=20dB"`, `"cosine>=0.99"` or `"loss<=0.05"`.

    Args:
        value: A share of answers, or text.

    Returns:
        The fields of an `AccuracyBand`; anything else unchanged, for pydantic to refuse.

    Raises:
        ValueError: If text cannot be read as a band.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    if not isinstance(value, str):
        return {"metric": "drop", "limit": value}
    text = value.strip().lower()
    if match := re.fullmatch(rf"(?:drop\s*<=\s*)?{_NUMBER}\s*(%)?", text):
        return {"metric": "drop", "limit": float(match[1]) / (100 if match[2] else 1)}
    if match := re.fullmatch(rf"(?:(sqnr)\s*>=\s*{_NUMBER}\s*(?:db)?)", text):
        return {"metric": "sqnr", "limit": float(match[2])}
    if match := re.fullmatch(rf"(cosine)\s*>=\s*{_NUMBER}", text):
        return {"metric": "cosine", "limit": float(match[2])}
    if match := re.fullmatch(rf"(loss)\s*<=\s*{_NUMBER}", text):
        return {"metric": "loss", "limit": float(match[2])}
    raise ValueError(
        f"cannot read {value!r} as a band; write a drop such as 0.5%, or sqnr>=20dB, cosine>=0.99 or loss<=0.05"
    )


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AccuracyBand(_Frozen):
    """How much worse than the float model the result may be, measured on samples that decided nothing else.

    Attributes:
        metric: `drop`: share of answers lost, with labels `top1(float) - top1(quantized)`, without them the share of
            samples that the two models answer differently. `sqnr`: output signal-to-noise ratio, dB. `cosine`: mean
            cosine of the outputs. `loss`: mean increase of the loss.
        limit: The most of a drop or loss, the least of a ratio or cosine.
    """

    metric: Literal["drop", "sqnr", "cosine", "loss"]
    limit: Real = Field(allow_inf_nan=False)

    @model_validator(mode="after")
    def _in_range(self) -> AccuracyBand:
        if self.metric == "drop" and not 0 <= self.limit < 1:
            raise ValueError(f"a drop of {self.limit:g} is no share of answers; write 0.5% or 0.005")
        if self.metric == "cosine" and not -1 <= self.limit <= 1:
            raise ValueError(f"a cosine lies between -1 and 1, not at {self.limit:g}")
        if self.metric == "loss" and self.limit < 0:
            raise ValueError(f"a loss of {self.limit:g} would have the result better than the float model")
        return self

    @property
    def falls(self) -> bool:
        """Whether smaller values of the metric are better."""
        return self.metric in {"drop", "loss"}

    def holds(self, value: float) -> bool:
        """Tell whether a measured value lies inside.

        Args:
            value: The value.

        Returns:
            True if it does.
        """
        return value <= self.limit if self.falls else value >= self.limit

    def __str__(self) -> str:
        if self.metric == "drop":
            return f"a drop of at most {100 * self.limit:g}%"
        if self.metric == "sqnr":
            return f"an output SQNR of at least {self.limit:g} dB"
        return f"a {self.metric} of at {'most' if self.falls else 'least'} {self.limit:g}"


def _size_of_a_file(value: Any) -> Any:
    """Read a size and refuse those that no file has: of bare numbers most likely a ratio or a percentage was meant."""
    size = parse_size(value)
    if isinstance(size, int | float) and 1 < size < _SMALLEST_FILE:
        told = "" if _has_unit(value) else "is no ratio of the float file, which is at most 1, and "
        raise ValueError(
            f"{quote(value)} {told}would be too few bytes for any file; "
            "write a ratio such as 0.18, a percentage such as 18%, or bytes such as 2.5MB"
        )
    return size


def _has_unit(value: Any) -> bool:
    return isinstance(value, str) and value.strip()[-1:] in {"b", "B"}


_Written = Annotated[float, Field(gt=0)] | str
"""What the readers above take; the schema of a request says so."""

PeakMemory = Annotated[
    Real, BeforeValidator(parse_size, json_schema_input_type=_Written), Field(gt=0, allow_inf_nan=False)
]
Size = Annotated[
    Real, BeforeValidator(_size_of_a_file, json_schema_input_type=_Written), Field(gt=0, allow_inf_nan=False)
]
Bops = Annotated[
    Real, BeforeValidator(parse_bops, json_schema_input_type=_Written), Field(gt=0, allow_inf_nan=False)
]
Milliseconds = Annotated[
    Real, BeforeValidator(parse_latency, json_schema_input_type=_Written), Field(gt=0, allow_inf_nan=False)
]
Band = Annotated[AccuracyBand, BeforeValidator(parse_band, json_schema_input_type=AccuracyBand | float | str)]
Confidence = Annotated[
    Real,
    BeforeValidator(read_share, json_schema_input_type=Annotated[float, Field(ge=0.5, lt=1)] | str),
    Field(ge=0.5, lt=1),
]


def _is_left_out(limit: object) -> bool:
    return limit is None


class Budget(_Frozen):
    """What the result may cost; every limit given must be kept. Without any, the size is a quarter of the float file's.

    Attributes:
        size: At most 1: ratio of the float file's bytes. Above 1: bytes. Text such as `"2.5MB"` is read.
        effective_bits: Mean bits over all quantizable weights; a weight kept in float counts 32.
        bops: Bit operations a sample, `sum of MACs x weight bits x activation bits`. At most 1: share of the float
            model's, which has 32 x 32. Text such as `"3.5G"` is read.
        peak_memory: Most activations held at once, for one sample. At most 1: share of the float model's. Above 1:
            bytes. Text such as `"300kB"` is read.
        latency: Milliseconds of all quantizable layers together, as a latency table adds them up. Text such as
            `"800us"` is read.
        max_drop: How much worse than the float model the result may be. Alone: the smallest file inside the band. Text
            such as `"0.5%"`, `"sqnr>=20dB"`, `"cosine>=0.99"` or `"loss<=0.05"` is read.
        confidence: How sure it must be that the result keeps `max_drop` on samples like those given; 0.95 by default.
            Text such as `"90%"` is read.
    """

    size: Size | None = Field(default=None, exclude_if=_is_left_out)
    effective_bits: Real | None = Field(default=None, gt=0, le=32, exclude_if=_is_left_out)
    bops: Bops | None = Field(default=None, exclude_if=_is_left_out)
    peak_memory: PeakMemory | None = Field(default=None, exclude_if=_is_left_out)
    latency: Milliseconds | None = Field(default=None, exclude_if=_is_left_out)
    max_drop: Band | None = Field(default=None, exclude_if=_is_left_out)
    confidence: Confidence | None = Field(default=None, exclude_if=_is_left_out)

    @model_validator(mode="after")
    def _confidence_of_what(self) -> Budget:
        if self.confidence is not None and self.max_drop is None:
            raise FieldError(
                ("confidence",), "confidence says how surely max_drop is kept; give max_drop too"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _some_budget(cls, data: Any) -> Any:
        if isinstance(data, dict) and all(value is None for value in data.values()):
            return data | {"size": DEFAULT_SIZE}
        return data

    def limit_bytes(self, float_bytes: int) -> int | None:
        """Give the largest allowed file size.

        Args:
            float_bytes: Size of the float model with its external data, in bytes.

        Returns:
            The limit in bytes, or None if the size is left free.
        """
        if self.size is None:
            return None
        return int(self.size * float_bytes) if self.size <= 1 else int(self.size)


ANY_SIZE = Budget(size=2.0**62)
"""What every file keeps."""
