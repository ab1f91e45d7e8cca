"""From a torch module to an ONNX file, on the user's machine: a module itself is code, and is never sent."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NoReturn

from bitwright.errors import InvalidRequestError

_OPSET = 18


def export(module: Any, example_inputs: Any, folder: Path) -> Path:
    """Export a torch module to ONNX.

    Args:
        module: The module; it is put into evaluation mode while it is exported.
        example_inputs: A tensor, or a tuple of the module's inputs, of one batch.
        folder: Where to put the file.

    Returns:
        The ONNX file, with external data beside it where it is large.

    Raises:
        InvalidRequestError: If it is no module, or cannot be exported.
    """
    try:
        import torch  # the user's own; Bitwright's client does without
    except ModuleNotFoundError:
        _refuse(module)
    if not isinstance(module, torch.nn.Module):
        _refuse(module)
    if example_inputs is None:
        raise InvalidRequestError(
            "A torch module needs example_inputs to be exported.",
            remedy="Give the inputs of one batch: client.quantize(module, (x,), data=...).",
            where="example_inputs",
            code="torch_export",
        )
    inputs = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)
    path = folder / f"{type(module).__name__}.onnx"
    modes = {part: part.training for part in module.modules()}  # some of them may be frozen
    module.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about itself
            torch.onnx.export(
                module,
                inputs,
                path,
                dynamo=True,
                opset_version=_OPSET,
                verbose=False,
                external_data=_bytes(module) > 2**30,
                dynamic_shapes=_free_batch(torch, inputs),
            )
    except Exception as error:
        raise InvalidRequestError(
            f"torch cannot export the module: {_reason(error)}",
            remedy="Export it yourself with torch.onnx.export, and give the file.",
            where=type(module).__name__,
            code="torch_export",
        ) from error
    finally:
        for part, training in modes.items():
            part.training = training
    return path


def _reason(error: BaseException) -> str:
    """What lies at the bottom of torch's own wrapping, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _bytes(module: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def _free_batch(torch: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The first axis counts samples, where every input is a tensor with more than one of them."""
    if not all(isinstance(value, torch.Tensor) and value.ndim and value.shape[0] > 1 for value in inputs):
        return None
    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in inputs)


def _refuse(model: Any) -> NoReturn:
    raise InvalidRequestError(
        f"A {type(model).__name__} is no model.",
        remedy="Give the path of an ONNX file, or a torch module with example_inputs.",
        where="model",
        code="model",
    )
