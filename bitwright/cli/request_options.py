"""Options under no heading that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def is_a_file(path: Path | None) -> Path | None:
    """Refuse what stands for standard input, and take all else.

    Args:
        path: As written.

    Returns:
        The same.

    Raises:
        BadParameter: If it is a hyphen.
    """
    if str(path) == "-":
        raise typer.BadParameter("standard input cannot be read here; write it to a file and name that")
    return path


Model = Annotated[
    Path,
    typer.Argument(metavar="MODEL.onnx", help="The trained model.", show_default=False, callback=is_a_file),
]
Data = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="FILE",
        help="Samples: an .npz with one array for each graph input (and `labels`, if there are any), or an .npy "
        "for one input.",
        show_default=False,
        callback=is_a_file,
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="Where to compute: auto, cpu, cuda or cuda:N.")
]
Folder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for the results.", show_default=False)
]
Effort = Annotated[
    str | None,
    typer.Option(
        "--effort",
        metavar="LEVEL",
        help="How much time to spend: fast, balanced or best. Default: balanced.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="Runtime the file is made for: ort-cpu, ort-cuda, tensorrt or portable. Default: ort-cpu.",
    ),
]
Opset = Annotated[
    int | None,
    typer.Option("--opset", metavar="N", help="Opset of a portable file, 18 to 25. Default: 21."),
]
Seed = Annotated[
    int,
    typer.Option("--seed", metavar="N", help="Seed of everything random; the same seed gives the same file."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", help="Processes that share the measurements. Default: one for each GPU."
    ),
]
