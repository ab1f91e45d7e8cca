"""The latency table: what each layer takes in onnxruntime in each form it can be given."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class LayerLatency(BaseModel):
    """One layer's times in a run of the whole model.

    Attributes:
        name: The layer.
        form: How it runs in integers: `static`, `dynamic`, `gather`, `weight_only` or `wide`.
        float_ms: Median milliseconds with float weights.
        float_spread: Interquartile range of these times.
        integer_ms: Median milliseconds in that form; the same at every integer width, which are all unpacked at load.
        integer_spread: Interquartile range of these times.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    form: str
    float_ms: float
    float_spread: float
    integer_ms: float
    integer_spread: float


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
        layers: One row a layer, in graph order.
    """

    model_config = ConfigDict(frozen=True)

    version: int = 1
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
    layers: tuple[LayerLatency, ...]
