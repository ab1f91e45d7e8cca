"""What a file declares about its outputs, held against what a run gives."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir


def correct_declared(model: ir.Model, found: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Leave sizes of outputs open that are declared otherwise than they are.

    onnxruntime runs such files with a warning, but a checker that infers shapes refuses them.

    Args:
        model: The normalised model; its outputs are changed in place.
        found: Graph output name -> the shape that a run gave.

    Returns:
        What the user should know, one line for each output that was corrected.
    """
    notes = []
    for value in model.graph.outputs:
        shape, declared = found.get(value.name or ""), value.shape
        if shape is None:
            continue
        if declared is None:
            value.shape = ir.Shape([None] * len(shape))
            continue
        if len(declared) != len(shape):
            value.shape = ir.Shape([None] * len(shape))
        elif any(isinstance(said, int) and said != size for said, size in zip(declared, shape, strict=True)):
            value.shape = ir.Shape(
                None if isinstance(said, int) and said != size else said
                for said, size in zip(declared, shape, strict=True)
            )
        else:
            continue
        notes.append(
            f"output {value.name!r} is declared as {_listed(declared)}, but a run gave {_listed(shape)}; sizes that "
            "are not so are left open."
        )
    return tuple(notes)


def _listed(shape: ir.Shape | tuple[int, ...]) -> str:
    sizes = [size if isinstance(size, int) else (size.value or "?") for size in shape]
    return f"[{', '.join(map(str, sizes))}]"
