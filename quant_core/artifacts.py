"""The files of one job, written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from quant_core.errors import SpecError
from quant_core.named_files import is_utf8

MODEL = "model.onnx"
MODEL_DATA = "model.onnx.data"
"""Tensors of a model above 2 GiB."""
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
SENSITIVITY = "sensitivity.json"
PARETO = "pareto.json"
COSTS = "costs.json"
INTERACTIONS = "interactions.npz"
SPECTRUM_JSON = "spectrum.json"
SPECTRUM_HTML = "spectrum.html"
ARTIFACTS = (MODEL, REPORT_JSON, REPORT_HTML, SENSITIVITY, PARETO, COSTS)


def check_place(out: Path, sources: Collection[Path]) -> None:
    """Refuse a folder where a job would replace what is not its own: the very model it is made of, say.

    Args:
        out: The folder that is to receive the files of a quantization.
        sources: The files that the job reads.

    Raises:
        SpecError: If it holds one of them under the name of a result, a folder of such a name, or a model without the
            report that a job writes with it.
    """
    remedy = "Name another folder, such as `result`."
    for name in (*ARTIFACTS, MODEL_DATA):
        place = out / name
        if place.is_dir():
            raise SpecError("this is a folder, where a file is to be.", remedy=remedy, where=str(place))
        if place.exists() and any(source.exists() and place.samefile(source) for source in sources):
            raise SpecError("the result would replace what it is made of.", remedy=remedy, where=str(place))
    if (out / MODEL).exists() and not (out / REPORT_JSON).exists():
        raise SpecError(
            "the result would replace a model that lies there without a report, so it is none of ours.",
            remedy=remedy,
            where=str(out / MODEL),
        )


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def _fullest(anchor: Path, out: Path) -> Path:
    """Of the folder of the results and that of temporary files the one whose disk has less room."""
    temporary = Path(tempfile.gettempdir())
    return temporary if shutil.disk_usage(temporary).free < shutil.disk_usage(anchor).free else out


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Collect files in a temporary folder and move them to their place only if the block succeeds.

    Args:
        out: The folder that is to receive the files; made if missing. Files of the same name are replaced.

    Yields:
        An empty folder on the same disk.

    Raises:
        SpecError: If the place cannot be written to, or files there cannot be opened again.
        OSError: If the disk is full, with the folder on it as the file's name, and whatever else the block raises.
    """
    anchor = out.absolute()
    while not anchor.exists():
        anchor = anchor.parent
    if not anchor.is_dir() or not os.access(anchor, os.W_OK):
        raise SpecError(
            "this is not a folder that can be written to.", remedy="Name another one.", where=str(out)
        )
    if not is_utf8(anchor):
        raise SpecError(
            "the path holds bytes that are no UTF-8, and onnxruntime opens no file there.",
            remedy="Name another folder.",
            where=str(out),
        )
    # Next to the target, so that moving is renaming; inside it when it exists, since its parent may be read-only.
    try:
        folder = Path(tempfile.mkdtemp(prefix=".bitwright-", dir=anchor))
    except OSError as error:
        raise SpecError(
            f"no file can be made there ({error.strerror}).", remedy="Name another folder.", where=str(out)
        ) from error
    try:
        yield folder
        out.mkdir(parents=True, exist_ok=True)
        # The model last: without a report beside it, it would be taken for one that is not ours.
        for file in sorted(folder.iterdir(), key=lambda file: (file.name == MODEL, file.name)):
            file.replace(out / file.name)
    except OSError as error:
        if error.errno in _NO_ROOM and error.filename is None:  # as where a file is written to, not opened
            error.filename = str(_fullest(anchor, out))
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
