"""Whether the files of a request are there and can be named, before anything is loaded that reads them."""

from __future__ import annotations

from pathlib import Path

from quant_core.errors import ModelError, SamplesError

_NO_UTF8 = "the path holds bytes that are no UTF-8."
_RENAME = "Rename the file or its folder."


def require_model_file(path: Path) -> None:
    """See that a model is a file.

    Args:
        path: The ONNX file.

    Raises:
        ModelError: If it is not there, a folder, or has a name that no report can hold.
    """
    if not path.is_file():
        raise ModelError(
            f"the model file {_instead(path)}.", remedy="Give the path of an .onnx file.", where=str(path)
        )
    if not is_utf8(path):
        raise ModelError(_NO_UTF8, remedy=_RENAME, where=str(path))


def require_sample_file(path: Path) -> None:
    """See that samples are a file.

    Args:
        path: The `.npz` or `.npy` file.

    Raises:
        SamplesError: If it is not there, a folder, or has a name that no report can hold.
    """
    if not path.is_file():
        raise SamplesError(
            f"the sample file {_instead(path)}.", remedy="Give an .npz or .npy file.", where=str(path)
        )
    if not is_utf8(path):
        raise SamplesError(_NO_UTF8, remedy=_RENAME, where=str(path))


def is_utf8(path: Path) -> bool:
    """Tell whether a path can be written as text: JSON holds no other, and onnxruntime opens no other.

    Args:
        path: Any path.

    Returns:
        False where it holds bytes that are no UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _instead(path: Path) -> str:
    if path.is_dir():
        return "is a folder"
    return "is no regular file" if path.exists() else "does not exist"
