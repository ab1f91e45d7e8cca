"""Quality of the quantized file beside the float file, both run by onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from quant_core.errors import InternalError, ModelError, SamplesError
from quant_core.spec import Metrics
from quant_core.verification.metrics import MetricAccumulator
from quant_core.verification.session import Arrays, Batch, Model, choose_batch, open_session, run_batches

OnBatch = Callable[[slice, Arrays, Arrays], None]


def compare(
    float_model: Model,
    quantized_model: Model,
    inputs: Arrays,
    *,
    classes: bool,
    labels: NDArray[Any] | None = None,
    batch: int | None = None,
    threads: int | None = None,
    headline: str | None = None,
    on_batch: OnBatch | None = None,
) -> Metrics:
    """Run both files on the same samples and compare what they answer.

    Args:
        float_model: The float model.
        quantized_model: The quantized model.
        inputs: Graph input name -> array, samples along the first axis.
        classes: Whether the headline's output holds class logits; else an embedding or a regression.
        labels: Integer class of every sample.
        batch: Samples per batch; default as many as fit 8 MiB of input. Layers that quantize their input at run
            time take its range over the batch, so this changes their answers a little.
        threads: Threads onnxruntime gets for a file; default all cores this process may use.
        headline: The output that the headline is of; None for the first.
        on_batch: Given every batch as a slice of the samples, and what both answer, by output name.

    Returns:
        Top-1 with labels, top-1 agreement, mean cosine and the signal-to-noise ratio of every output that both models
        give in the same size.

    Raises:
        ModelError: If onnxruntime cannot run the float model.
        SamplesError: If samples or labels do not fit the graph.
        NonFiniteError: If an output holds NaN or infinity.
        InternalError: If onnxruntime cannot run the quantized model.
    """
    reference = open_session(float_model, threads=threads) if isinstance(float_model, Path) else float_model
    size = batch or choose_batch(reference, inputs)
    metrics = MetricAccumulator(classes=classes, headline=headline)
    pairs = zip(
        run_batches(reference, inputs, size),
        _run_ours(quantized_model, inputs, size, threads),
        strict=True,
    )
    for (part, expected), (_, values) in pairs:
        metrics.add(expected, values, None if labels is None else labels[part])
        if on_batch is not None:
            on_batch(part, expected, values)
    return metrics.result()


def _run_ours(model: Model, inputs: Arrays, batch: int, threads: int | None) -> Iterator[Batch]:
    # The float model ran on these samples, so whatever fails here is not the user's doing.
    try:
        if isinstance(model, Path):
            model = open_session(model, threads=threads)
        yield from run_batches(model, inputs, batch)
    except (ModelError, SamplesError) as error:
        raise InternalError(f"The quantized model does not run in onnxruntime. {error}") from error
