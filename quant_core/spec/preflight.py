"""What can be said about a model before any job."""

from __future__ import annotations

from typing import Literal

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
        input_elements: Elements per sample of the activations it reads; null like `macs`.
        output_elements: Elements per sample of the tensors it writes; null like `macs`.
        uses: How many nodes read the weight; above 1 it is tied.
        siblings: Other layers that read one of its activations, such as query, key and value.
        first: Whether no layer lies in front of it.
        last: Whether no layer comes after it.
    """

    name: str
    op: str
    weight: str
    shape: tuple[int, ...]
    parameters: int
    macs: int | None
    input_elements: int | None
    output_elements: int | None
    uses: int
    siblings: tuple[str, ...]
    first: bool
    last: bool


class PreflightWeight(_Value):
    """A weight that stays float.

    Attributes:
        name: Weight tensor.
        shape: Its shape.
        parameters: Number of elements.
        reason: Why.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    reason: str


class PreflightPart(_Value):
    """A part of the model that is quantized already.

    Attributes:
        name: Operator node that computes.
        op: Its type.
        form: `qdq`, `qoperator`, `dynamic`, `block`, `packed` or `activations`.
        nodes: All nodes that belong to it.
        weights: Its stored weights.
        bits: Bits of its weights; null where it has none.
    """

    name: str
    op: str
    form: str
    nodes: tuple[str, ...]
    weights: tuple[str, ...]
    bits: int | None


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


class PreflightBatch(_Value):
    """How samples would be run.

    Attributes:
        size: Samples that the graph demands per run; null where it takes any number.
        handling: `free` where the graph takes any number, `made free` where a rewritten copy does, `one by one` where a
            batch of 1 cannot be changed, `fixed` where the graph demands more than one, `unclear` where the inputs
            disagree.
        reason: What stands in the way, where something does.
    """

    size: int | None
    handling: Literal["free", "made free", "one by one", "fixed", "unclear"]
    reason: str | None = None


class Preflight(_Value):
    """What a model holds, what can be quantized, and how small it can become.

    Attributes:
        version: Version of this format.
        name: File name.
        float_bytes: Bytes of the model with its external data.
        smallest_bytes: Predicted size with every layer at the fewest bits, and room for zero points: the smallest
            budget that is surely kept.
        opset: Opset of the file.
        normalised_opset: Opset after normalisation.
        computed_in_float32: Float types of layers that are computed and quantized in float32 instead.
        inputs: Graph inputs.
        outputs: Graph outputs.
        batch: How samples would be run.
        layers: Layers that can be quantized, in graph order.
        float_weights: Weights that stay float, inside of subgraphs too.
        quantized_parts: What is quantized already; a job refuses the model unless asked to keep it.
        unsupported_operators: Operators the engine cannot run or differentiate; a job would refuse the model.
    """

    version: int = 1
    name: str
    float_bytes: int
    smallest_bytes: int
    opset: int
    normalised_opset: int
    computed_in_float32: tuple[str, ...]
    inputs: tuple[PreflightTensor, ...]
    outputs: tuple[PreflightTensor, ...]
    batch: PreflightBatch
    layers: tuple[PreflightLayer, ...]
    float_weights: tuple[PreflightWeight, ...]
    quantized_parts: tuple[PreflightPart, ...]
    unsupported_operators: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Elements of all quantizable weights."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def smallest_ratio(self) -> float:
        """Smallest size as a ratio of the float file."""
        return self.smallest_bytes / self.float_bytes
