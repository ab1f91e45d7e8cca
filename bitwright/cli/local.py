"""The engine in this process; the only place of the client that loads it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.cli.failures import MissingEngineError
from quant_core.named_files import require_model_file, require_sample_file
from quant_core.processors.granted import limit_threads
from quant_core.spec import (
    AnalyzeSpec,
    BitPlan,
    LatencyTable,
    PlanSpec,
    ProgressCallback,
    QuantizeSpec,
    Report,
    SensitivityTable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quant_core.spec.debugging import Debugging
    from quant_core.spec.evaluation import Evaluation
    from quant_core.spec.preflight import Preflight

_OURS = ("bitwright", "quant_core", "app")


def quantize(
    model: Path,
    data: Path,
    spec: QuantizeSpec,
    out: Path,
    on_progress: ProgressCallback,
    earlier: Path | None = None,
) -> Report:
    """Quantize a model.

    Args:
        model: The ONNX file.
        data: The samples.
        spec: What is asked.
        out: Folder for the results.
        on_progress: Told what the engine does.
        earlier: Folder of an earlier job whose sensitivities are taken over.

    Returns:
        The report.
    """
    _prepare(model, data)
    with engine():
        from quant_core import pipeline
    return pipeline.quantize(
        model=model, data=data, spec=spec, out=out, on_progress=on_progress, earlier=earlier
    )


def analyze(
    model: Path, data: Path, spec: AnalyzeSpec, out: Path, on_progress: ProgressCallback
) -> SensitivityTable:
    """Estimate what each layer of a model loses in few bits.

    Args:
        model: The ONNX file.
        data: The samples.
        spec: What is asked.
        out: The table's file.
        on_progress: Told what the engine does.

    Returns:
        The table.
    """
    _prepare(model, data)
    with engine():
        from quant_core import analysis
    return analysis.analyze(model=model, data=data, spec=spec, out=out, on_progress=on_progress)


def profile(model: Path, data: Path, spec: QuantizeSpec, runs: int) -> LatencyTable:
    """Measure what each layer takes in onnxruntime.

    Args:
        model: The ONNX file.
        data: The samples.
        spec: Activation bits and target.
        runs: Timed runs of each form.

    Returns:
        The table.
    """
    _prepare(model, data)
    with engine():
        from quant_core import profiling
    return profiling.profile(model, data, spec, runs=runs)


def plan(tables: Path, spec: PlanSpec) -> BitPlan:
    """Make a plan from the tables of an ended job.

    Args:
        tables: The job's folder, or its sensitivity table.
        spec: What is asked.

    Returns:
        The plan.
    """
    with engine():
        from quant_core.allocation.replan import replan
    return replan(tables, spec)


def inspect(model: Path, data: Path | None = None) -> Preflight:
    """Look at a model before any job.

    Args:
        model: The ONNX file.
        data: Samples, for models that leave sizes open.

    Returns:
        Its layers, what the engine cannot do with it, and what a size budget can reach.
    """
    _prepare(model, data)
    with engine():
        from quant_core import preflight
    return preflight.inspect_model(model, data)


def evaluate(model: Path, data: Path) -> Evaluation:
    """Measure a model on samples in onnxruntime.

    Args:
        model: The ONNX file.
        data: The samples.

    Returns:
        The metric.
    """
    _prepare(model, data)
    with engine():
        from quant_core import evaluation
    return evaluation.evaluate(model, data)


def debug(
    model: Path, quantized: Path, data: Path, worst: int, samples: int, tell: Callable[[float, str], None]
) -> Debugging:
    """Find where a quantized file loses.

    Args:
        model: The float file.
        quantized: The quantized file, or the folder of its job.
        data: The samples.
        worst: Layers to try other weights for.
        samples: The most samples run.
        tell: Told what is done.

    Returns:
        The layers, worst first.
    """
    _prepare(model, data)
    with engine():
        from quant_core import debugging
    return debugging.debug(model, quantized, data, worst=worst, samples=samples, on_progress=tell)


def _prepare(model: Path, data: Path | None) -> None:
    """See that the files are there before seconds go by that load the engine, and how many threads it may have."""
    require_model_file(model)
    if data is not None:
        require_sample_file(data)
    limit_threads()


@contextmanager
def engine() -> Iterator[None]:
    """Import the engine or the service within this context; a missing module of our own stays the fault that it is.

    Yields:
        Nothing.

    Raises:
        MissingEngineError: If a package of the engine or the service is not installed.
        ModuleNotFoundError: If it is one of our own modules.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = error.name or ""
        if name.partition(".")[0] in _OURS:
            raise
        raise MissingEngineError(
            f"The engine is not installed (there is no {name}). Install it, in a clone of the repository: "
            "pip install '.[cpu]' -c constraints.txt, or '.[gpu]' where there is an NVIDIA GPU."
        ) from error
