"""The latency table: what each layer takes in onnxruntime in each form it can be given."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import BaseModel, ConfigDict


class FormLatency(BaseModel):
    """A layer's times in one more form.

    Attributes:
        form: `block` (MatMulNBits, weights stay packed) or `weight_only` (unpacked at load, float arithmetic).
        bits: Bits of the weight; null where they make no difference to the kernel.
        ms: Median milliseconds.
        spread: Interquartile range of these times.
    """

    model_config = ConfigDict(frozen=True)

    form: str
    bits: int | None
    ms: float
    spread: float


class LayerLatency(BaseModel):
    """One layer's times in a run of the whole model.

    Attributes:
        name: The layer.
        form: How it runs in integers: `static`, `dynamic`, `gather`, `weight_only` or `wide`.
        float_ms: Median milliseconds with float weights.
        float_spread: Interquartile range of these times.
        integer_ms: Median milliseconds in that form; the same at every integer width, which are all unpacked at load.
        integer_spread: Interquartile range of these times.
        others: Its times in the other forms that a request can give it; packed 2 to 6 bits run on the same kernel as 8.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    form: str
    float_ms: float
    float_spread: float
    integer_ms: float
    integer_spread: float
    others: tuple[FormLatency, ...] = ()

    def find(self, form: str, bits: int) -> float | None:
        """Look a time up.

        Args:
            form: How the layer runs.
            bits: Bits of its weight.

        Returns:
            Milliseconds; None if that was not measured.
        """
        if form == self.form:
            return self.integer_ms
        for other in self.others:
            if other.form == form and other.bits in {None, bits}:
                return other.ms
        # Where it is not what was timed that a layer reads, its weight is unpacked at load and it runs as in float.
        return self.float_ms if form in {"float", "weight_only", "wide"} else None


class FileLatency(BaseModel):
    """A run of the whole model with every layer that can in one more form.

    Attributes:
        form: As in `FormLatency`.
        bits: As in `FormLatency`.
        rest: Milliseconds of everything that is no layer.
        total: Median milliseconds, timed as a whole.
    """

    model_config = ConfigDict(frozen=True)

    form: str
    bits: int | None
    rest: float
    total: float


class LatencyTable(BaseModel):
    """Times of all layers, measured in turn on one machine.

    Attributes:
        version: Version of this format.
        model: File name of the model.
        target: The runtime.
        threads: Threads it was given.
        batch: Samples a run.
        runs: Timed runs of each form.
        activation_bits: Bits of activations in the integer forms.
        float_rest: Milliseconds a run of everything that is no layer, in the float model.
        integer_rest: The same with every layer in integers.
        float_total: Median milliseconds of a run of the float model, timed as a whole.
        integer_total: The same with every layer in integers.
        block_size: Inputs in a block of the `block` forms.
        others: The same of the other forms; only those that any layer takes.
        layers: One row a layer, in graph order.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[2] = 2
    model: str
    target: str
    threads: int
    batch: int
    runs: int
    activation_bits: int
    float_rest: float
    integer_rest: float
    float_total: float
    integer_total: float
    block_size: int | None = None
    others: tuple[FileLatency, ...] = ()
    layers: tuple[LayerLatency, ...]

    @property
    def disturbed(self) -> bool:
        """Whether layers add up to more than twice the time of the whole run, which only other work explains."""
        float_layers = sum(layer.float_ms for layer in self.layers)
        integer_layers = sum(layer.integer_ms for layer in self.layers)
        return float_layers > 2 * self.float_total or integer_layers > 2 * self.integer_total

    def rest(self, forms: Collection[str]) -> float:
        """Give the time of what is no layer, beside layers in some forms.

        Args:
            forms: How the layers run.

        Returns:
            Milliseconds, of the measured file that is most like it.
        """
        if {"static", "dynamic", "gather"}.isdisjoint(forms):
            for other in self.others:
                if other.form == "block" and "block" in forms:
                    return other.rest
        return self.float_rest if set(forms) <= {"float"} else self.integer_rest
