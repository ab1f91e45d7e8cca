"""The sensitivity table: what each layer loses at each bit-width. An artifact of its own."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class LayerSensitivity(BaseModel):
    """One layer's row.

    Attributes:
        name: The layer.
        weight: Its weight tensor.
        parameters: Number n of weight elements.
        trace: Tr(H_i) of the mean loss over the samples, not divided by n.
        trace_stderr: Standard error of `trace`.
        perturbation: Bits -> squared norm of Q(W) - W.
        sensitivity: Bits -> expected loss increase.
        sensitivity_stderr: Bits -> standard error of `sensitivity`.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    weight: str
    parameters: int
    trace: float | None = None
    trace_stderr: float | None = None
    perturbation: dict[int, float] = {}
    sensitivity: dict[int, float] = {}
    sensitivity_stderr: dict[int, float] | None = None


class SensitivityTable(BaseModel):
    """Expected loss increase of every layer at every bit-width.

    Attributes:
        version: Version of this format.
        method: The estimator that `sensitivity` comes from.
        trace_method: The estimator that `trace` comes from.
        loss: The loss whose increase is estimated.
        loss_guessed: Whether the loss was guessed from labels and graph, and from what.
        samples: Number of samples used.
        probes: Number of random probes behind the traces.
        seed: Seed of the probes.
        layers: One row a layer, in graph order.
    """

    model_config = ConfigDict(frozen=True)

    version: int = 1
    method: str
    trace_method: str
    loss: str
    loss_guessed: str | None = None
    samples: int
    probes: int
    seed: int
    layers: tuple[LayerSensitivity, ...]
