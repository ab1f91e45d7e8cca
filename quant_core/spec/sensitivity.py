"""The sensitivity table: what each layer loses at each bit-width. An artifact of its own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

Scores = Annotated[
    dict[int, float],
    BeforeValidator(lambda scores: scores or {}),
    PlainSerializer(lambda scores: scores or None, return_type=dict[int, float] | None),
]
"""Bits -> expected loss increase; written as null where there is none."""


class LayerSensitivity(BaseModel):
    """One layer's row; what the method does not give is null.

    Attributes:
        name: The layer.
        weight: Its weight tensor.
        parameters: Number n of weight elements.
        trace: Tr(H_i) of the mean loss over the samples, not divided by n.
        trace_stderr: Standard error of `trace`.
        eigenvalue: Largest eigenvalue of H_i.
        perturbation: Bits -> squared norm of Q(W) - W, with Q the rounding that was asked for.
        sensitivity: Bits -> expected loss increase; empty here and null in JSON where there is none.
        sensitivity_stderr: Bits -> standard error of `sensitivity`.
        activation_trace: Tr(H_a) of the loss in the layer's input a, per sample and averaged, not divided by the size
            of a; summed over the tensors that the layer reads.
        activation_trace_stderr: Standard error of `activation_trace`.
        activation_sensitivity: Bits of activations -> expected loss increase of rounding what the layer reads, and
            writes where its kernel does; null unless such bits were to be chosen.
        sparse_sensitivity: Width with outliers (1500004: 4 bits, 1.5 % outliers) -> expected loss increase: that of the
            same bits without, times what outliers leave of the layer's output error; null unless they were open.
        orthogonality: Sum of the layer's similarities to all layers, itself among them: OMPQ's gamma_i.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    weight: str
    parameters: int
    trace: float | None = None
    trace_stderr: float | None = None
    eigenvalue: float | None = None
    perturbation: dict[int, float] = {}
    sensitivity: Scores = {}
    sensitivity_stderr: dict[int, float] | None = None
    activation_trace: float | None = None
    activation_trace_stderr: float | None = None
    activation_sensitivity: dict[int, float] | None = None
    sparse_sensitivity: dict[int, float] | None = None
    orthogonality: float | None = None


class SensitivityTable(BaseModel):
    """Expected loss increase of every layer at every bit-width.

    Attributes:
        version: Version of this format.
        method: The estimator that `sensitivity` comes from.
        trace_method: The estimator that `trace` comes from; null where there are no traces.
        loss: The loss whose increase is estimated.
        loss_guessed: Whether the loss was guessed from labels and graph, and from what.
        rounding: How Q(W) was found.
        equalized_bits: Mean bits of weights that channels were scaled for before rounding; null where the graph was
            taken as it is.
        samples: Number of samples used.
        probes: Number of random probes.
        seed: Seed of the probes.
        weights: SHA-256 of the float tensors that the model stores; null where an earlier version did not tell.
        data: SHA-256 of all samples that were given, with their labels; null where an earlier version did not tell.
        stopped: Why the estimate ended.
        layers: One row a layer, in graph order.
        warnings: Layers with a trace, an eigenvalue or a score that is not finite and so is left out, by name.
        interactions: Binary file beside this one, `.npz`, with what belongs to pairs of layers; null if there is none.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    method: str
    trace_method: str | None = None
    loss: str
    loss_guessed: str | None = None
    rounding: str | None = None
    equalized_bits: float | None = None
    samples: int
    probes: int
    seed: int
    weights: str | None = None
    data: str | None = None
    stopped: str = ""
    layers: tuple[LayerSensitivity, ...]
    warnings: tuple[str, ...] = ()
    interactions: str | None = None
