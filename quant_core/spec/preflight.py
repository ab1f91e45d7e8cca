"""What can be said about a model before any sample is seen."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class PreflightLayer(_Value):
    """A layer that can be quantized.

    Attributes:
        name: The layer.
        op: Operator type.
        weight: Weight tensor.
        shape: Its shape.
        parameters: Number of weight elements.
        macs: Multiply-accumulates per sample; null where the graph leaves its shapes open.
        uses: How many nodes read the weight.
    """

    name: str
    op: str
    weight: str
    shape: tuple[int, ...]
    parameters: int
    macs: int | None
    uses: int


class PreflightWeight(_Value):
    """A weight that stays float.

    Attributes:
        name: Weight tensor.
        parameters: Number of elements.
        reason: Why.
    """

    name: str
    parameters: int
    reason: str


class PreflightTensor(_Value):
    """A graph input or output.

    Attributes:
        name: Its name.
        type: Element type as numpy names it.
        shape: Sizes; text for a dynamic axis; null where the rank is unknown.
    """

    name: str
    type: str
    shape: tuple[int | str, ...] | None


class Preflight(_Value):
    """What a model holds, what can be quantized, and how small it can become.

    Attributes:
        version: Version of this format.
        name: File name.
        float_bytes: Bytes of the model with its external data.
        smallest_bytes: Predicted size with every layer at the fewest bits: a budget below it is refused.
        opset: Opset after normalisation.
        inputs: Graph inputs.
        outputs: Graph outputs.
        layers: Layers that can be quantized, in graph order.
        float_weights: Weights that stay float.
        unsupported_operators: Operators the engine cannot run or differentiate; a job would refuse the model.
    """

    version: int = 1
    name: str
    float_bytes: int
    smallest_bytes: int
    opset: int
    inputs: tuple[PreflightTensor, ...]
    outputs: tuple[PreflightTensor, ...]
    layers: tuple[PreflightLayer, ...]
    float_weights: tuple[PreflightWeight, ...]
    unsupported_operators: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Elements of all quantizable weights."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def smallest_ratio(self) -> float:
        """Smallest size as a ratio of the float file."""
        return self.smallest_bytes / self.float_bytes
