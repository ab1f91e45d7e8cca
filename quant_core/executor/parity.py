"""Compares a program with onnxruntime on given samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from quant_core.errors import InternalError, ModelError
from quant_core.executor.dtypes import to_numpy, to_torch
from quant_core.executor.layout import fast_layout
from quant_core.executor.program import Program

SMALLEST_SCALE = 1e-3
"""Outputs smaller than this throughout are measured against it: onnxruntime approximates exponentials to within
1e-7 or so, however small the result, and such differences say nothing."""

HALF_TOLERANCE = 2e-2
"""Allowed for models in 16-bit floats: onnxruntime rounds after every node where we compute in 32 bits."""

_SERIALIZED_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Parity:
    """How far the program is from onnxruntime.

    Attributes:
        errors: For each graph output, the largest difference divided by the largest magnitude onnxruntime gave; for
            integer and boolean outputs the share of unequal elements.
        tolerance: What was allowed.
        flipped: The first comparison or selection that float rounding decided the other way, where outputs differ by
            more than was allowed because of it; else None.
        sqnr_db: Signal-to-noise ratio over all float outputs, where that was the measure; else None.
    """

    errors: Mapping[str, float]
    tolerance: float
    sqnr_db: float | None = None
    flipped: str | None = None

    @property
    def worst(self) -> float:
        """The largest error over all outputs."""
        return max(self.errors.values(), default=0.0)


def check_parity(
    model: str | Path | bytes,
    program: Program,
    feeds: Mapping[str, np.ndarray],
    tolerance: float = 1e-3,
    least_sqnr_db: float | None = None,
) -> Parity:
    """Runs the same samples through onnxruntime and the program and compares all outputs.

    Where values nearly tie, float rounding decides which box or index is selected, and everything behind it parts. If
    the first tensor that parts holds integers or booleans, it and every other one that parts are held against
    onnxruntime by themselves, on what onnxruntime computed before them.

    Args:
        model: The ONNX file, or its bytes.
        program: The same model, compiled.
        feeds: Graph input name -> samples, in the declared types.
        tolerance: Largest allowed error relative to the scale of each output; raised to `HALF_TOLERANCE` for models
            in 16-bit floats.
        least_sqnr_db: For models that are quantized in part: the smallest signal-to-noise ratio allowed, over all float
            outputs, in place of the tolerance. A value halfway between two codes may fall to either side, and one such
            step is larger than any tolerance for floats.

    Returns:
        The errors found, none above the tolerance but those behind a flipped selection.

    Raises:
        ModelError: If onnxruntime cannot load or run the model, or gives something else each time.
        InternalError: If the two part; names the first tensor in execution order that differs.
    """
    source = model if isinstance(model, bytes) else str(model)
    if program.rounds and program.precision.dtype is None:
        tolerance = max(tolerance, HALF_TOLERANCE)
    theirs = _run_onnxruntime(source, feeds, program.outputs)
    ours = _run_program(program, feeds, program.outputs)
    errors = {name: distance(theirs[name], ours[name]) for name in program.outputs}
    if least_sqnr_db is not None:
        ratio = _sqnr_db([(theirs[name], ours[name]) for name in program.outputs])
        if not ratio >= least_sqnr_db:
            raise InternalError(
                f"onnxruntime and the executor disagree: what the outputs differ by is {ratio:.1f} dB below them, and "
                f"rounding in the quantized parts explains no more than {least_sqnr_db:.0f} dB."
            )
        return Parity(errors, tolerance, ratio)
    parity = Parity(errors, tolerance)
    if not parity.worst <= tolerance:
        culprit, error, flipped = _first_difference(source, program, feeds, tolerance)
        if flipped:
            return Parity(errors, tolerance, flipped=culprit)
        worst = max(errors, key=lambda name: errors[name])
        _check_repeatable(source, feeds, worst, tolerance, culprit)
        found = f"'{culprit}' (error {error:.2g})" if culprit else f"'{worst}'"
        raise InternalError(
            f"onnxruntime and the executor disagree: output '{worst}' by {errors[worst]:.2g} of its scale, "
            f"more than {tolerance:.2g}; the first tensor where they part is {found}."
        )
    return parity


def distance(reference: np.ndarray, found: np.ndarray) -> float:
    """Error of an array relative to the scale of a reference; infinite where shapes or NaNs differ.

    Args:
        reference: What is taken to be right.
        found: What to judge.

    Returns:
        The largest difference over the largest magnitude, or over `SMALLEST_SCALE` where that is larger; for integers
        and booleans the share of unequal elements.
    """
    if reference.shape != found.shape:
        return np.inf
    if reference.size == 0:
        return 0.0
    if reference.dtype.kind in "biu":
        return float(np.mean(reference != found))
    a, b = reference.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return np.inf
    if not finite.any():
        return 0.0
    scale = max(np.abs(a[finite]).max(), SMALLEST_SCALE)
    return float(np.abs(a[finite] - b[finite]).max() / scale)


def _sqnr_db(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """10 log10(signal / noise), each output divided by its own energy first; infinite where nothing differs."""
    shares = []
    for reference, found in pairs:
        if reference.shape != found.shape:
            return -np.inf
        if reference.dtype.kind == "f" and reference.size:
            a, b = reference.astype(np.float64), found.astype(np.float64)
            energy = max(float(np.square(a).sum()), SMALLEST_SCALE**2)
            shares.append(float(np.square(a - b).sum()) / energy)
    noise = float(np.mean(shares)) if shares else 0.0
    return np.inf if noise == 0 else float(-10 * np.log10(noise))


def _session(source: str | bytes, optimize: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = max(torch.get_num_threads(), 1)
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _run_onnxruntime(
    source: str | bytes, feeds: Mapping[str, np.ndarray], names: tuple[str, ...], optimize: bool = True
) -> dict[str, Any]:
    try:
        session = _session(source, optimize)
        known = {entry.name for entry in session.get_inputs()}
        values = session.run(list(names), {name: feeds[name] for name in feeds if name in known})
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        told = (
            str(error)
            if isinstance(source, bytes)
            else str(error).replace(f"Load model from {source} failed:", "")
        )
        raise ModelError(
            f"onnxruntime cannot run the model: {told.rstrip(' .')}.",
            remedy="Check the model with onnx.checker and the samples against its inputs.",
            where=None if isinstance(source, bytes) else source,
        ) from error
    return dict(zip(names, values, strict=True))


def _check_repeatable(
    source: str | bytes, feeds: Mapping[str, np.ndarray], output: str, tolerance: float, culprit: str | None
) -> None:
    """Refuse a model that draws random numbers which reach its outputs: there is nothing to be held against."""
    session = _session(source, optimize=True)
    known = {entry.name for entry in session.get_inputs()}
    given = {name: feeds[name] for name in feeds if name in known}
    one, other = (session.run([output], given)[0] for _ in range(2))
    if not distance(one, other) <= tolerance:
        place = f", first in '{culprit}'" if culprit else ""
        raise ModelError(
            f"the model draws random numbers: with the same samples, onnxruntime gives another '{output}' "
            f"each time{place}.",
            remedy="Export it in evaluation mode, without dropout, or with its noise as an input.",
        )


def _run_program(
    program: Program,
    feeds: Mapping[str, np.ndarray],
    names: tuple[str, ...],
    given: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, np.ndarray]:
    tensors = {
        name: to_torch(np.asarray(feeds[name]), kind, program.precision)
        for name, kind in zip(program.inputs, program.input_kinds, strict=True)
        if name in feeds and kind is not None
    }
    tensors = {name: fast_layout(value) for name, value in tensors.items()} | dict(given or {})
    with torch.no_grad():
        values = program.evaluate(tensors, outputs=names)
    return {name: to_numpy(value) for name, value in values.items()}


def _first_difference(
    source: str | bytes, program: Program, feeds: Mapping[str, np.ndarray], tolerance: float
) -> tuple[str | None, float, bool]:
    # The first interior tensor that differs, None where interior ones cannot be had; by how much; and whether all that
    # differ come out right by themselves.
    proto = onnx.load_model_from_string(source) if isinstance(source, bytes) else onnx.load_model(source)
    if proto.ByteSize() > _SERIALIZED_LIMIT:
        return None, 0.0, False
    produced = {name for node in proto.graph.node for name in node.output if name}
    shared = tuple(name for name in program.order if name in produced)
    present = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in shared if name not in present)
    theirs = _run_onnxruntime(proto.SerializeToString(), feeds, shared, optimize=False)
    ours = _run_program(program, feeds, shared)
    shared = tuple(name for name in shared if isinstance(theirs[name], np.ndarray))
    errors = {name: distance(theirs[name], ours[name]) for name in shared}
    parted = [name for name in shared if not errors[name] <= tolerance]
    if not parted:
        return None, 0.0, False
    flipped = theirs[parted[0]].dtype.kind in "biu" and all(
        _agrees_alone(program, feeds, theirs, shared[: shared.index(name)], name, tolerance)
        for name in parted
    )
    return parted[0], errors[parted[0]], flipped


def _agrees_alone(
    program: Program,
    feeds: Mapping[str, np.ndarray],
    theirs: Mapping[str, Any],
    before: Sequence[str],
    name: str,
    tolerance: float,
) -> bool:
    """Whether a tensor comes out as in onnxruntime from what onnxruntime computed before it."""
    given = {other: torch.from_numpy(np.array(theirs[other])) for other in before}
    ours = _run_program(program, feeds, (name,), given)[name]
    return distance(theirs[name], ours) <= tolerance
