"""What `evaluate` found."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Evaluation(BaseModel):
    """The metric of one model file on labelled samples, as onnxruntime runs it.

    Attributes:
        model: File name of the model.
        metric: The metric: `top1`.
        value: Its value, from 0 to 1.
        samples: Number of samples.
        seconds: Wall seconds of all runs.
        batch: Samples per run.
        batch_latency_ms: Median milliseconds of one run of `batch` samples.
        threads: Threads onnxruntime was given.
        interval: 95 % confidence interval of the value.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    metric: str
    value: float
    samples: int
    seconds: float
    batch: int
    batch_latency_ms: float
    threads: int
    interval: tuple[float, float]
