"""The options of `quantize` and `analyze` by name, for editors and type checkers; the fields of the requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, TypeVar

from bitwright.errors import InvalidRequestError
from bitwright.requests import read_request
from quant_core.spec import LayerRule, Request, SensitivityMethod

S = TypeVar("S", bound=Request)

Bits = Sequence[int | str] | str


class RequestOptions(TypedDict, total=False):
    """What a quantization and an analysis have in common.

    Attributes:
        bits: Candidate bits for every weight; `"float"` keeps a layer in float.
        pin: Layer name or glob to bits.
        exclude: Layer names or globs to keep in float.
        rules: Pins, exclusions and limits by layer, in full.
        sensitivity: How the loss increase is estimated.
        loss: What "worse" means.
        effort: What the weight options below are where they are left out: `fast`, `balanced` or `best`.
        rounding: How weights find their codes.
        foem_beta: Weight of the first-order term of `foem`, 0 to 1.
        descent: Whether codes of GPTQ and FOEM are improved one by one.
        sparse: Share of the weights that layers may keep apart, or `"auto"`.
        granularity: What has a scale of its own: `tensor`, `channel` or `block`.
        block_size: Consecutive inputs in a block, 16 to 256.
        symmetric: False for scales with zero points.
        weight_format: `int`, or the floating format of its own width.
        weight_range: Ranges of weights: `hessian`, `mse`, `minmax` or `percentile`.
        equalize: Where channels are scaled before rounding: `auto`, `all` or `none`.
        bias_correction: Whether biases make up for mean errors.
        quantized_parts: What to do with a model that is quantized in part: `refuse` or `keep`.
        spectrum: Whether to estimate eigenvalue densities as well.
        seed: Seed of everything random.
        device: Where the service computes.
        workers: Processes that share the sensitivity stage.
    """

    bits: Bits
    pin: Mapping[str, int | str]
    exclude: Sequence[str] | str
    rules: Sequence[LayerRule]
    sensitivity: SensitivityMethod
    loss: str
    effort: str
    rounding: str
    foem_beta: float
    descent: bool
    sparse: float | str
    granularity: str
    block_size: int
    symmetric: bool
    weight_format: str
    weight_range: str
    equalize: str
    bias_correction: bool
    quantized_parts: str
    spectrum: bool
    seed: int
    device: str
    workers: int


class QuantizeOptions(RequestOptions, total=False):
    """What a quantization can be asked for; `spec=QuantizeSpec(...)` has everything.

    Attributes:
        size: What the result may take: a ratio of the float file such as 0.18, or bytes such as `"2.5MB"`.
        effective_bits: Mean bits over all weights.
        bops: Bit operations of one sample.
        peak_memory: Most activations at once, for one sample: a ratio of the float model's, or bytes.
        latency: Time of all layers, by a latency table.
        max_drop: The quality to keep.
        confidence: How sure it must be that `max_drop` is kept: 0.95 unless given.
        float_activations: Layers to run in float on packed weights.
        layer_activations: Layers whose activations have bits of their own: 8, 16 or `"float"`.
        activation_bits: 8, 16, or `"float"` to pack weights only; several, such as `[8, 16, "float"]`, to choose from
            layer by layer.
        activation_range: How the range of an activation is chosen: `output` if left out; `mse` for large networks and
            fewer than 4 samples, and `output` in front of a maximum over many places.
        float_islands: Share of the time that layers whose activations bear no 8 bits may take more; 0 for none, 0.15 if
            left out and more where 8 bits ruin the answer or miss `max_drop`.
        follow: Whether layers of the plan are rounded again for what the rounded layers before them give.
        mix_channels: Whether channels of one layer may take two widths.
        trellis: Whether layers of 2 to 5 bits get trellis codes, where that pays.
        allocation: How bits are chosen.
        ties: Layers that get the same bits.
        target: The runtime the file is made for.
        held_back: Share of the samples kept for verification.
    """

    size: float | str
    effective_bits: float
    bops: float | str
    peak_memory: float | str
    latency: float | str
    max_drop: str
    confidence: float | str
    float_activations: Sequence[str] | str
    layer_activations: Mapping[str, int | str]
    activation_bits: int | str | Sequence[int | str]
    activation_range: str
    float_islands: float
    follow: bool
    mix_channels: bool
    trellis: bool
    allocation: str
    ties: Sequence[Sequence[str]]
    target: str
    held_back: float


class AnalyzeOptions(RequestOptions, total=False):
    """What an analysis can be asked for; `spec=AnalyzeSpec(...)` has everything.

    Attributes:
        size: The size that plans will have, for which channels are scaled: a ratio of the float file, or bytes.
        effective_bits: The mean bits that plans will have.
        held_back: Share of the samples left out, as a quantization leaves them out for verification.
        activations: Whether to estimate activation traces as well.
        tolerance: Relative standard error at which estimating stops.
        probes: Most random probes.
        samples: Most samples.
    """

    size: float | str
    effective_bits: float
    held_back: float
    activations: bool
    tolerance: float
    probes: int
    samples: int


def request_of(kind: type[S], given: Mapping[str, Any], spec: S | None) -> S:
    """Put a request together from single options, or take a complete one.

    Args:
        kind: Which request.
        given: Single options.
        spec: A complete request.

    Returns:
        The request.

    Raises:
        InvalidRequestError: If both are given, or an option cannot be used.
    """
    options = {name: value for name, value in given.items() if value is not None}
    if spec is None:
        return read_request(kind, options)
    if options:
        raise InvalidRequestError(
            "Both spec and single options are given.",
            remedy="Put the options into the spec.",
            where=next(iter(options)),
            code="spec",
        )
    return spec
