"""Options that several commands put into their requests."""

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
        help="Samples: .npz with one array per graph input and optional labels, or .npy.",
        show_default=False,
        callback=is_a_file,
    ),
]
EffectiveBits = Annotated[
    str | None,
    typer.Option("--effective-bits", help="Budget: mean bits over all weights, float counting 32."),
]
Operations = Annotated[
    str | None,
    typer.Option(
        "--bops", help="Budget: bit operations a sample (3.5G), or share of the float model's (5%)."
    ),
]
PeakMemory = Annotated[
    str | None,
    typer.Option(
        "--peak-memory",
        help="Budget: most bytes of activations at once, for one sample (300kB), or share of the float model's (30%).",
    ),
]
Latency = Annotated[
    str | None, typer.Option("--latency", help="Budget: time of the layers by a latency table (2.5ms).")
]
Pin = Annotated[
    list[str] | None,
    typer.Option("--pin", metavar="GLOB=BITS", help="Fix the bits of layers; may be repeated."),
]
LossWeight = Annotated[
    list[str] | None,
    typer.Option(
        "--loss-weight",
        metavar="OUTPUT=WEIGHT",
        help="Factor of an output's loss among several, 0 to leave it out; may be repeated.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="GLOB", help="Keep layers in float; may be repeated."),
]
LayerActivations = Annotated[
    list[str] | None,
    typer.Option(
        "--layer-activations",
        metavar="GLOB=BITS",
        help="Give the activations of these layers 8 or 16 bits, or float; may be repeated.",
    ),
]
Granularity = Annotated[
    str | None, typer.Option("--granularity", help="What has a scale of its own: tensor, channel or block.")
]
BlockSize = Annotated[
    int | None, typer.Option("--block-size", help="Consecutive inputs in a block, 16 to 256.")
]
Sparse = Annotated[
    str | None,
    typer.Option(
        "--sparse", metavar="SHARE", help="Outliers that layers may keep apart: 0.02 of the weights, or auto."
    ),
]
Asymmetric = Annotated[
    bool, typer.Option("--asymmetric", help="Give every scale of integer weights a zero point.")
]
WeightFormat = Annotated[
    str | None, typer.Option("--weight-format", help="int, fp8_e4m3, fp8_e5m2, nvfp4 or mxfp4.")
]

Spectrum = Annotated[
    bool, typer.Option("--spectrum", help="Estimate the Hessian's eigenvalue density as well.")
]


def read_loss_weights(weights: list[str] | tuple[()]) -> dict[str, str]:
    """Read options of the form OUTPUT=WEIGHT.

    Args:
        weights: As written.

    Returns:
        Output -> weight.
    """
    return _read_pairs(weights, "--loss-weight", "OUTPUT=WEIGHT, such as boxes=0.5")


def read_pins(pins: list[str] | tuple[()]) -> dict[str, str]:
    """Read options of the form GLOB=BITS.

    Args:
        pins: As written.

    Returns:
        Glob -> bits.
    """
    return _read_pairs(pins, "--pin", "GLOB=BITS, such as fc=8")


def read_layer_activations(activations: list[str] | tuple[()]) -> dict[str, str]:
    """Read options of the form GLOB=BITS that are about activations.

    Args:
        activations: As written.

    Returns:
        Glob -> bits.
    """
    return _read_pairs(activations, "--layer-activations", "GLOB=BITS, such as head=16")


def _read_pairs(texts: list[str] | tuple[()], option: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")  # tensor names may hold an equals sign, numbers never do
        if not equals or not name:
            raise typer.BadParameter(f"{text!r} is not of the form {form}", param_hint=option)
        found[name] = value
    return found
