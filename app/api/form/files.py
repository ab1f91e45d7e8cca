"""Where the files of a form go, and which names they may have."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from app.api.problems import ProblemError

FILE_FIELDS = ("model", "data", "files")
_MAX_FILES = 4096


class FormFiles:
    """Says where each part of the form goes: to a file below one folder, or kept as text.

    Attributes:
        model: The model's file, once there is one.
        data: The samples' file, once there is one.
        data_name: What the client calls it.
    """

    def __init__(self, folder: Path, *texts: str) -> None:
        """Start with no parts.

        Args:
            folder: Where files go.
            texts: Parts that are no files, such as `spec`.
        """
        self._folder = folder
        self._texts = texts
        self._names: set[PurePosixPath] = set()
        self._named = 0
        self.model: Path | None = None
        self.data: Path | None = None
        self.data_name = ""

    def accept(self, name: str, filename: str | None) -> Path | None:
        """Say where a part goes.

        Args:
            name: Name of the form field.
            filename: Name of the file, if the client gave one.

        Returns:
            The path of a new file, or None for text: without a file name, a file's part names an upload.
        """
        if name in self._texts or (filename is None and name in FILE_FIELDS and self._named < _MAX_FILES):
            self._named += 1
            return None
        return self.place(name, filename)

    def place(self, name: str, filename: str | None) -> Path:
        """Choose the path of a new file.

        Args:
            name: Name of the form field.
            filename: Name of the file, if the client gave one.

        Returns:
            Its path.

        Raises:
            ProblemError: If there is no place for it.
        """
        if name == "model" and self.model is None:
            self.model = self._beside(_plain(filename, "model.onnx"))
            return self.model
        if name == "data" and self.data is None:
            self.data_name = _plain(filename, "samples")
            self.data = self._folder / "data" / "upload"
            return self.data
        if name == "files" and len(self._names) < _MAX_FILES:
            return self._beside(filename or "")
        raise ProblemError(
            400,
            "unexpected_part",
            f"The form has an unexpected or repeated part named {name!r}.",
            remedy="Send one `model`, one `data`, and `files` for external data only; "
            + (
                "what is asked, such as a size, goes into `spec`."
                if self._texts
                else "nothing else is asked of a model that is looked at."
            ),
            where=name,
        )

    def _beside(self, filename: str) -> Path:
        relative = _relative(filename)
        taken = self._names | {parent for name in self._names for parent in name.parents}
        if relative in taken or self._names & set(relative.parents):
            raise _bad_name(filename, "is there twice")
        self._names.add(relative)
        return self._folder / "model" / relative


def _plain(filename: str | None, default: str) -> str:
    last = re.split(r"[/\\]", filename or "")[-1]
    name = re.sub(r"[^\w.+-]", "_", last).lstrip(".")[-60:]
    return name or default


def _relative(filename: str) -> PurePosixPath:
    path = PurePosixPath(filename)
    parts = filename.split("/")
    if (
        not filename
        or path.is_absolute()
        or any(part in {"", ".", ".."} or len(part.encode()) > 255 for part in parts)
        or re.search(r"[\\:\x00-\x1f\x7f]", filename)
        or len(filename.encode()) > 1024
    ):
        raise _bad_name(filename, "is not a plain relative path")
    return path


def _bad_name(filename: str, what: str) -> ProblemError:
    return ProblemError(
        400,
        "file_name",
        f"The file name {filename[:200]!r} {what}.",
        remedy="Name external data as the model does: relative to the model, with forward slashes, inside its folder.",
        where="files",
    )
