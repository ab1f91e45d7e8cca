"""The sensitivity table: traces to explain with, and an expected loss increase per layer and bit-width to spend by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quant_core.ingest.layer import Layer
from quant_core.sensitivity.curvature.traces import Floats
from quant_core.sensitivity.estimators.activations import ActivationTraces
from quant_core.sensitivity.estimators.interaction import Interactions
from quant_core.sensitivity.findings import Findings
from quant_core.sensitivity.methods import MEASURED, METHODS, explaining_activations, explaining_traces
from quant_core.sensitivity.question import Question, Widths
from quant_core.spec import FLOAT_BITS, LayerSensitivity, SensitivityMethod, SensitivityTable


@dataclass(frozen=True, eq=False)
class Answer:
    """A table, and what belongs to pairs of layers.

    Attributes:
        table: The table.
        interactions: Loss increases of pairs of layers, from `interaction`.
        similarity: Similarity of the outputs of every two layers, from `orm`.
    """

    table: SensitivityTable
    interactions: Interactions | None = None
    similarity: Floats | None = None

    def referring_to(self, file: str) -> Answer:
        """Name the file that what belongs to pairs of layers is written to.

        Args:
            file: Its name, beside the table's.

        Returns:
            The answer with this name in its table.
        """
        table = self.table.model_copy(update={"interactions": file})
        return dataclasses.replace(self, table=table)


def answer(
    question: Question,
    method: SensitivityMethod,
    rounding: str | None = None,
    *,
    activations: bool = False,
) -> Answer:
    """Estimate what each layer loses at each bit-width, by any method.

    `sensitivity` is `Tr(H_i)/n_i * ||Q(W_i) - W_i||^2` for methods that give traces: HAWQ-V2's score, which has no
    factor 1/2 (arXiv:1911.03852, equation 3), so that a second-order prediction of the loss is half of it for a
    perturbation spread evenly over the layer's directions. For `hawq` it is `lambda_i * ||Q(W_i) - W_i||^2`, for
    `kfac` its own prediction, for `output`, `interaction` and `pqi` the measured increase of the loss, beside which
    Gauss-Newton traces explain. Float weights have exactly 0. A bit-width whose score is not finite is left out of
    its layer; `missing_scores` names them.

    Args:
        question: What is asked.
        method: Name of the estimator.
        rounding: Name of the quantizer behind `question.quantized`, to write into the table.
        activations: Whether to estimate traces in the layers' inputs as well.

    Returns:
        The table, and what belongs to pairs of layers.
    """
    whole, question = question, question.part(0.0, 0.8) if activations else question
    if method in MEASURED:
        explained = explaining_traces(question.part(0.0, 0.3))
        found = METHODS[method](question.part(0.3, 1.0)) if any(question.widths) else None
        found = dataclasses.replace(
            found or Findings(explained.samples, explained.stopped),
            probes=explained.probes,
            trace=explained.trace,
            trace_stderr=explained.stderr,
        )
    else:
        found = METHODS[method](question)
    inputs, input_traces = None, None
    if activations:
        input_traces = explaining_activations(whole.part(0.8, 1.0))
        inputs = input_traces.of_layers(whole.layers)
    table = SensitivityTable(
        method=method,
        trace_method=None if found.trace is None else "gauss_newton" if method in MEASURED else method,
        loss=question.objective.name,
        loss_guessed=question.objective.guessed,
        rounding=rounding,
        samples=found.samples,
        probes=found.probes,
        seed=question.seed,
        stopped=found.stopped,
        layers=tuple(_row(question, i, found, inputs) for i in range(len(question.layers))),
    )
    warnings = missing_scores(table, question.bits)
    if input_traces is not None:
        warnings += _missing_inputs(question.layers, input_traces)
    return Answer(table.model_copy(update={"warnings": warnings}), found.interactions, found.similarity)


def missing_scores(table: SensitivityTable, bits: Widths) -> tuple[str, ...]:
    """Name the layers whose trace, eigenvalue or scores were not finite.

    Args:
        table: The table.
        bits: Bit-widths it was asked for, for all layers or by layer name.

    Returns:
        One warning a layer.
    """
    scores = any(layer.sensitivity for layer in table.layers)
    warnings = []
    for layer in table.layers:
        asked = bits[layer.name] if isinstance(bits, Mapping) else bits
        lacking = [str(b) for b in asked if scores and b not in layer.sensitivity]
        if lacking:
            warnings.append(f"{layer.name}: no finite score at {', '.join(lacking)} bits; not offered there.")
        elif layer.trace is None and table.trace_method is not None:
            warnings.append(f"{layer.name}: the trace is not finite.")
    return tuple(warnings)


def _missing_inputs(layers: Sequence[Layer], found: ActivationTraces) -> tuple[str, ...]:
    lost = {name for name, trace in zip(found.tensors, found.trace, strict=True) if not np.isfinite(trace)}
    return tuple(
        f"{layer.name}: the trace in its input is not finite." for layer in layers if lost & {*layer.inputs}
    )


def _row(
    question: Question, index: int, found: Findings, inputs: tuple[Floats, Floats] | None
) -> LayerSensitivity:
    layer = question.layers[index]
    widths, has_float = question.widths[index], FLOAT_BITS in question.asked(layer)
    exact = {FLOAT_BITS: 0.0} if has_float else {}
    scores: dict[int, float] = {}
    errors: dict[int, float] = {}
    if found.score is not None:
        scores = _finite(widths, found.score[index])
        if found.score_stderr is not None:
            errors = {b: e for b, e in _finite(widths, found.score_stderr[index]).items() if b in scores}
    given = found.score is not None or not any(question.widths)
    return LayerSensitivity(
        name=layer.name,
        weight=layer.weight,
        parameters=layer.parameters,
        trace=_entry(found.trace, index),
        trace_stderr=_entry(found.trace_stderr, index),
        eigenvalue=_entry(found.eigenvalue, index),
        perturbation=_finite(widths, question.norms[index]) | exact,
        sensitivity=scores | exact if given else {},
        sensitivity_stderr=(errors | exact) if given and found.score_stderr is not None else None,
        activation_trace=None if inputs is None else _entry(inputs[0], index),
        activation_trace_stderr=None if inputs is None else _entry(inputs[1], index),
        orthogonality=None
        if found.similarity is None
        else _entry(np.nansum(found.similarity, axis=1), index),
    )


def _finite(widths: Sequence[int], values: Floats) -> dict[int, float]:
    return {b: float(value) for b, value in zip(widths, values, strict=False) if np.isfinite(value)}


def _entry(values: Floats | None, index: int) -> float | None:
    return float(values[index]) if values is not None and np.isfinite(values[index]) else None
