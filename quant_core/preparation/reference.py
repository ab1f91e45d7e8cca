"""The float model as onnxruntime runs it: what the executor is held against, and the result compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from quant_core.calibration import Samples
from quant_core.errors import ModelError, name_some
from quant_core.executor import Program, check_parity
from quant_core.ingest import Source
from quant_core.ingest.passes.float_types import COMPUTED_IN_FLOAT32
from quant_core.preparation.crashes import crashes_onnxruntime
from quant_core.preparation.scratch import Scratch
from quant_core.preparation.single_samples import fix_batch, is_open

_EXACT_DB = 50.0
_KEPT_DB = 20.0
_NAMED_PARTS = 20

# Before version 4 of the format every weight had to be listed as an input.
_FREE_INITIALIZERS = 4

_IN_FLOAT32 = "they are computed and quantized in float32; graph inputs and outputs keep their types."
_TWIN = "quality and speed are compared with the same model in float32."
_ROUNDED = "the outputs in float32 differ from those of the file in {} by noise at {:.1f} dB."
_ONE_ALONE = (
    "the inputs leave the batch open, but onnxruntime runs one sample a run only; the file fixes it at 1."
)
_BY_NOISE = (
    "values halfway between two codes of a quantized part may fall to either side, so the executor was compared with "
    "onnxruntime by signal-to-noise ratio: {:.1f} dB."
)


@dataclass(frozen=True, eq=False)
class Reference:
    """A float model that onnxruntime runs.

    Attributes:
        path: The user's file; a copy, which lives as long as this, where onnxruntime has no kernels for it (in float32)
            or takes one sample a run and the file does not say so.
        notes: What the user should know.
        folder: Where the copy lies, if there is one.
    """

    path: Path
    notes: tuple[str, ...] = ()
    folder: Scratch | None = None


def find_reference(source: Source, model: ir.Model, program: Program, samples: Samples) -> Reference:
    """Hold the executor against onnxruntime on a few samples.

    Args:
        source: The user's file.
        model: Its normalised graph.
        program: The graph, compiled.
        samples: The samples.

    Returns:
        What onnxruntime runs.

    Raises:
        ModelError: If onnxruntime runs neither the file nor a float32 copy, or a bfloat16 input cannot be fed.
        InternalError: If the executor computes something else.
    """
    replaced: tuple[str, ...] = model.meta.get(COMPUTED_IN_FLOAT32, ())
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.dtype == ir.DataType.BFLOAT16:
            raise ModelError(
                f"{value.name!r} is bfloat16, which neither sample files nor onnxruntime's Python interface can hold.",
                remedy="Export the model with float32 inputs and outputs; its weights may stay bfloat16.",
                where=str(source.path),
            )
    notes = (*_constant_inputs(source, model), *_kept(source))
    if replaced:
        found = _in_float32(source, model, program, samples, " and ".join(replaced))
        return Reference(found.path, (*notes, *found.notes), found.folder)
    path, folder = source.path, None
    if samples.batch is not None and is_open(source.model):
        folder = Scratch()
        path, notes = _fixed(source, folder), (*notes, _ONE_ALONE)
    if not source.quantized_parts:
        check_parity(path, program, samples.inputs)
        return Reference(path, notes, folder)
    parity = check_parity(path, program, samples.inputs, least_sqnr_db=_KEPT_DB)
    return Reference(path, (*notes, _BY_NOISE.format(parity.sqnr_db)), folder)


def _fixed(source: Source, folder: Scratch) -> Path:
    """Write a copy that takes one sample a run and says so."""
    copy, path = source.model.clone(), folder.path / "single.onnx"
    fix_batch(copy)
    ir.save(copy, path, external_data="single.data")
    return path


def _in_float32(
    source: Source, model: ir.Model, program: Program, samples: Samples, stored: str
) -> Reference:
    """Hold the executor against a float32 copy, and against the user's file, which rounds otherwise."""
    folder = Scratch()
    copy = folder.path / "float32.onnx"
    ir.save(model, copy, external_data="float32.data")
    exact = _KEPT_DB if source.quantized_parts else _EXACT_DB
    try:
        check_parity(copy, program, samples.inputs, least_sqnr_db=exact)
    except ModelError as error:
        raise ModelError(error.message, remedy=error.remedy, where=str(source.path)) from error
    note = f"layers are stored in {stored}; {_IN_FLOAT32}"
    if crashes_onnxruntime(source.path):
        return Reference(
            copy, (note, f"onnxruntime crashes when it loads this model in {stored}; {_TWIN}"), folder
        )
    try:
        parity = check_parity(source.path, program, samples.inputs, least_sqnr_db=_KEPT_DB)
    except ModelError:
        return Reference(
            copy, (note, f"onnxruntime has no kernels for this model in {stored}; {_TWIN}"), folder
        )
    return Reference(source.path, (note, _ROUNDED.format(stored, parity.sqnr_db)))


def _constant_inputs(source: Source, model: ir.Model) -> tuple[str, ...]:
    """Inputs that a caller could leave out, and now always must."""
    if (source.model.ir_version or 0) < _FREE_INITIALIZERS:
        return ()
    left = {value.name for value in model.graph.inputs}
    gone = [repr(value.name) for value in source.model.graph.inputs if value.name not in left]
    if not gone:
        return ()
    return (f"graph inputs with a default value became constants: {name_some(gone, _NAMED_PARTS)}.",)


def _kept(source: Source) -> tuple[str, ...]:
    parts = source.quantized_parts
    if not parts:
        return ()
    return (
        f"kept as they are: {len(parts)} parts that are quantized already: {name_some(parts, _NAMED_PARTS)}.",
    )
