"""Whether the files of a request are there, before anything is loaded that reads them."""

from __future__ import annotations

from pathlib import Path

from quant_core.errors import ModelError, SamplesError


def require_model_file(path: Path) -> None:
    """See that a model is a file.

    Args:
        path: The ONNX file.

    Raises:
        ModelError: If it is not there, or a folder.
    """
    if not path.is_file():
        raise ModelError(
            f"the model file {_instead(path)}.", remedy="Give the path of an .onnx file.", where=str(path)
        )


def require_sample_file(path: Path) -> None:
    """See that samples are a file.

    Args:
        path: The `.npz` or `.npy` file.

    Raises:
        SamplesError: If it is not there, or a folder.
    """
    if not path.is_file():
        raise SamplesError(
            f"the sample file {_instead(path)}.", remedy="Give an .npz or .npy file.", where=str(path)
        )


def _instead(path: Path) -> str:
    if path.is_dir():
        return "is a folder"
    return "is no regular file" if path.exists() else "does not exist"
