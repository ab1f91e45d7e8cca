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


BUDGETS = "Budgets (any of them together)"
CHOICES = "What may be chosen"
LAYERS = "Single layers (names as `bitwright inspect` prints them; * and ? stand for any letters)"
SCORES = "How sensitivities are measured"
CODES = "How weights and activations are rounded (the defaults are meant to be left alone)"

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
EffectiveBits = Annotated[
    str | None,
    typer.Option(
        "--effective-bits",
        metavar="B",
        help="Mean bits over all weights, such as 4; weights in float count 32.",
        rich_help_panel=BUDGETS,
    ),
]
Operations = Annotated[
    str | None,
    typer.Option(
        "--bops",
        metavar="N",
        help="Bit operations for one sample (3.5G), or a share of the float model's (5%).",
        rich_help_panel=BUDGETS,
    ),
]
PeakMemory = Annotated[
    str | None,
    typer.Option(
        "--peak-memory",
        metavar="N",
        help="Most bytes of activations held at once, for one sample (300kB), or a share of the float model's (30%).",
        rich_help_panel=BUDGETS,
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(
        "--latency",
        metavar="T",
        help="Time of all layers (2.5ms), added up from a table of `bitwright profile`.",
        rich_help_panel=BUDGETS,
    ),
]
Pin = Annotated[
    list[str] | None,
    typer.Option(
        "--pin",
        metavar="GLOB=BITS",
        help="Fix the bits of these layers, such as 'fc*=8'; may be repeated.",
        rich_help_panel=LAYERS,
    ),
]
Loss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="NAME",
        help="What counts as worse: auto, cross_entropy, kl or squared_error. Default: auto.",
        rich_help_panel=SCORES,
    ),
]
LossWeight = Annotated[
    list[str] | None,
    typer.Option(
        "--loss-weight",
        metavar="OUTPUT=WEIGHT",
        help="How much an output counts among several; 0 leaves it out; may be repeated.",
        rich_help_panel=SCORES,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="GLOB",
        help="Keep these layers in float; may be repeated.",
        rich_help_panel=LAYERS,
    ),
]
LayerActivations = Annotated[
    list[str] | None,
    typer.Option(
        "--layer-activations",
        metavar="GLOB=BITS",
        help="Give the activations of these layers 8 or 16 bits, or float; may be repeated.",
        rich_help_panel=LAYERS,
    ),
]
Equalize = Annotated[
    str | None,
    typer.Option(
        "--equalize",
        metavar="WHERE",
        help="Where channels are scaled before rounding: auto, all or none. Default: auto.",
        rich_help_panel=CODES,
    ),
]
Granularity = Annotated[
    str | None,
    typer.Option(
        "--granularity",
        metavar="WHAT",
        help="What has a scale of its own: tensor, channel or block. Default: channel.",
        rich_help_panel=CODES,
    ),
]
BlockSize = Annotated[
    int | None,
    typer.Option(
        "--block-size",
        metavar="N",
        help="Consecutive inputs in a block, 16 to 256. Default: 32.",
        rich_help_panel=CODES,
    ),
]
Sparse = Annotated[
    str | None,
    typer.Option(
        "--sparse",
        metavar="SHARE",
        help="Let layers store their outliers apart: a share of their weights (0.02), or auto. Default: 0.",
        rich_help_panel=CODES,
    ),
]
Asymmetric = Annotated[
    bool,
    typer.Option(
        "--asymmetric", help="Give every scale of integer weights a zero point.", rich_help_panel=CODES
    ),
]
WeightFormat = Annotated[
    str | None,
    typer.Option(
        "--weight-format",
        metavar="NAME",
        help="int, fp8_e4m3, fp8_e5m2, nvfp4 or mxfp4. Default: int.",
        rich_help_panel=CODES,
    ),
]

Spectrum = Annotated[
    bool,
    typer.Option(
        "--spectrum", help="Estimate the Hessian's eigenvalue density as well.", rich_help_panel=SCORES
    ),
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
        if found.setdefault(name, value) != value:
            raise typer.BadParameter(
                f"{name} is given {found[name]} and {value}; write it once", param_hint=option
            )
    return found
