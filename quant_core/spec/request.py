"""The requests: candidate bits, budget, layer rules, sensitivity method, seed."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from quant_core.spec.activation_bits import ActivationBits
from quant_core.spec.bits import DEFAULT_WEIGHT_BITS, WIDE_BITS, Bits, known_bits
from quant_core.spec.budget import Budget
from quant_core.spec.field_error import FieldError
from quant_core.spec.latency import LatencyTable
from quant_core.spec.layer_rule import LayerRule
from quant_core.spec.number import Real, Whole
from quant_core.spec.quoting import quote
from quant_core.spec.share import Share
from quant_core.spec.shorthand import (
    BUDGETS,
    SHORTHAND,
    AsWritten,
    expand_bits,
    expand_budget,
    expand_rules,
)
from quant_core.spec.weight_grid import FORMAT_BITS
from quant_core.spec.weight_options import TUNED, WeightOptions
from quant_core.spec.width import KERNEL_BITS

SensitivityMethod = Literal[
    "output",
    "interaction",
    "pqi",
    "gauss_newton",
    "hawq_v2",
    "hutch++",
    "hawq",
    "gnb",
    "fisher",
    "kfac",
    "orm",
]
Allocation = Literal["optimal", "hawq_v2", "ompq"]
RangeMethod = Literal["mse", "minmax", "percentile", "entropy", "output"]
QuantizedParts = Literal["refuse", "keep"]
TargetName = Literal["ort-cpu", "ort-cuda", "tensorrt", "portable"]
Loss = Literal["auto", "cross_entropy", "kl", "squared_error"]

_GPUS: frozenset[TargetName] = frozenset({"tensorrt", "ort-cuda"})
_DEVICE = r"^(auto|cpu|cuda(:[0-9]+)?)$"


class Request(AsWritten, WeightOptions):
    """What a quantization and an analysis have in common.

    `bits`, `pin`, `exclude`, `float_activations` and `layer_activations` at the top level are read as shorthand, in the
    words of the command line: `{"bits": [4, 8], "pin": {"fc": 8}, "exclude": ["stem*"], "float_activations": ["head"],
    "layer_activations": {"gate": 16}}`.

    Attributes:
        weight_bits: Candidate bits for every weight; 32 or `"float"` keeps a layer in float.
        sensitivity: How the loss increase of each layer and bit-width is estimated.
        loss: What "worse" means; `auto` decides from labels and the graph and says so in the report.
        loss_weights: Output name -> factor of its loss among those of several outputs; 0 leaves it out, and 1 is for
            outputs that are not named.
        rules: Pins, exclusions and limits by layer.
        quantized_parts: What to do with a model that is quantized in part: refuse it, or keep those parts as they are
            and quantize the rest.
        spectrum: Whether to estimate the Hessian's eigenvalue density as well, for every layer and the whole network.
        seed: Seed of everything random.
        device: Where the engine computes: `auto`, `cpu`, `cuda` or `cuda:N`.
        workers: Processes that share the work of the sensitivity stage: on a CPU any number, with one thread each and
            the same result for every number; one for each GPU. Default: all GPUs where `device` is `auto`, else this
            process alone, with all its threads.
    """

    short_words: ClassVar[tuple[str, ...]] = (*SHORTHAND, *BUDGETS)

    weight_bits: tuple[Bits, ...] = DEFAULT_WEIGHT_BITS
    sensitivity: SensitivityMethod = "output"
    loss: Loss = "auto"
    loss_weights: dict[str, Annotated[Real, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    rules: tuple[LayerRule, ...] = ()
    quantized_parts: QuantizedParts = "refuse"
    spectrum: bool = False
    seed: Whole = Field(default=0, ge=0, lt=2**63)
    device: str = Field(default="auto", pattern=_DEVICE)
    workers: Whole | None = Field(default=None, ge=1, le=256)

    @model_validator(mode="before")
    @classmethod
    def _expand_layers(cls, data: Any) -> Any:
        return expand_rules(expand_bits(data)) if isinstance(data, dict) else data

    @field_validator("device", mode="before")
    @classmethod
    def _known_device(cls, device: Any) -> Any:
        if not isinstance(device, str) or re.fullmatch(_DEVICE, device) is None:
            raise ValueError(f"{quote(device)} is not a device; write auto, cpu, cuda or cuda:N")
        return device

    @field_validator("weight_bits", mode="before")
    @classmethod
    def _split_text(cls, value: Any) -> Any:
        return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("weight_bits")
    @classmethod
    def _sorted_unique(cls, bits: tuple[int, ...]) -> tuple[int, ...]:
        if not bits:
            raise ValueError("the list is empty; name at least one bit-width")
        return tuple(sorted({known_bits(b) for b in bits}))

    @model_validator(mode="after")
    def _format_is_a_candidate(self) -> Self:
        bits = FORMAT_BITS.get(self.weight_format)
        if bits is not None and bits not in self.weight_bits:
            raise FieldError(
                ("weight_format",),
                f"weight_format {self.weight_format} has {bits} bits, which are not among bits; add {bits}",
            )
        return self


class QuantizeSpec(Request):
    """One quantization request.

    The budgets by name are read as shorthand too: `{"size": 0.18, "bits": [4, 8]}`.

    Attributes:
        budget: What the result may cost.
        activation_bits: 8 (unsigned integer activations), 16 (unsigned too, but layers compute in float) or 32 (float
            activations, packed weights only); rules may say otherwise for single layers. Several of them, such as
            `[8, 16, "float"]`, are chosen from layer by layer, together with the bits of its weight. 4 may be among
            them: it counts in bit operations and in the simulation, and the file holds 8.
        activation_range: How the range of an 8-bit activation is chosen from what calibration saw. If left out `output`
            where samples suffice and their runs with gradients take little; else `mse`, and `output` in front of a
            maximum over many places.
        float_islands: Share of the file's estimated time that may be spent on running in float the few layers that lose
            most by 8-bit activations, where that lowers the loss by a fifth or more; 0 keeps all in integers. If left
            out 0.15, and where the answer is then still ruined (13 dB, 0.05 nats) 0.3, 0.6 or 1; where the largest file
            misses `max_drop`, 0.5, then as much as it takes to have all layers in float. Layers that take at most 3 %
            more so join also where little is lost, but for `effort` `fast`. All this where activations have 8 bits
            throughout, the target is `ort-cpu`, and BOPs, peak memory and latency are not limited.
        follow: Whether the layers of the chosen plan are rounded again, one after another, each for the inputs that the
            rounded layers before it give; not for `nearest` and `stochastic`, with fewer than 16 samples, or where next
            to nothing is lost.
        mix_channels: Whether output channels of one layer may take two widths, more bits for those that lose most:
            where that promises less loss in no more bytes and the measured loss confirms it, the target is `ort-cpu`,
            weights are integers with a step a channel, no layers are tied and peak memory is not limited.
        trellis: Whether layers of the chosen plan with 2 to 5 bits are coded anew so that their outputs change less in
            the same bits, where that promises more than the bytes of decoding would elsewhere. Weights are integers
            with a step a channel and no zero points, rounded by `gptq` or by what tunes its codes; the target is
            `ort-cpu` or `portable`.
        allocation: How bits are chosen from the estimates: `optimal` (integer program, and swaps where pairs of layers
            were measured), or for comparison `hawq_v2` (bits follow the order of mean traces) or `ompq` (bits by
            how little a layer's features are like those of others).
        ties: Lists of layers that must have the same bits, as names, weights or globs over either; a list of one kind
            of fusion group (`shared_input`, `residual`, `depthwise`) ties every group of this kind.
        latency_table: Times of every layer, from `bitwright profile`; a latency budget needs it.
        target: The runtime the file is made for: `ort-cpu`, `ort-cuda`, `tensorrt`, or `portable` (standard operators).
        opset: Opset of a portable file, 18 to 25; 21 if left out. Other targets choose their own.
        held_back: Share of the samples kept for verification and never used to decide anything.
    """

    budget: Budget = Budget()
    activation_bits: ActivationBits = 8
    activation_range: RangeMethod | None = None
    float_islands: Annotated[Share, Field(ge=0, le=1)] | None = None
    follow: bool = True
    mix_channels: bool = True
    trellis: bool = False
    allocation: Allocation = "optimal"
    ties: tuple[tuple[str, ...], ...] = ()
    latency_table: LatencyTable | None = None
    target: TargetName = "ort-cpu"
    opset: Whole | None = Field(default=None, ge=18, le=25)
    held_back: Share = Field(default=0.25, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _expand_short(cls, data: Any) -> Any:
        return expand_budget(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _latency_is_known(self) -> Self:
        if self.budget.latency is not None and self.latency_table is None:
            raise FieldError(
                ("budget", "latency"),
                "a latency budget needs a latency_table: measure one with `bitwright profile` (--latency-table)",
            )
        return self

    @model_validator(mode="after")
    def _opset_is_free(self) -> Self:
        if self.opset is not None and self.target != "portable":
            raise FieldError(
                ("opset",),
                f"{self.target} files have the opset their operators need; only portable ones let you choose",
            )
        return self

    @model_validator(mode="after")
    def _wide_runs_there(self) -> Self:
        asked: list[tuple[tuple[int | str, ...], object]] = [
            (("activation_bits",), bits) for bits in (*self.open_activations, self.activation_bits)
        ]
        asked += [(("rules", place), rule.activation_bits) for place, rule in enumerate(self.rules)]
        wide = next((place for place, bits in asked if bits == WIDE_BITS), None)
        if wide is not None and self.target != "ort-cpu":
            raise FieldError(
                wide,
                f"16-bit activations are written for ort-cpu alone, not for {self.target}; ask for 8 or float",
            )
        return self

    @model_validator(mode="after")
    def _outliers_run_there(self) -> Self:
        if self.sparse and self.target in _GPUS:
            raise FieldError(
                ("sparse",),
                f"sparse is unpacked by operators that {self.target} does not fold; the nearest it has are blocks: "
                "ask for granularity block, or for the target ort-cpu or portable",
            )
        return self

    @model_validator(mode="after")
    def _trellises_are_decoded(self) -> Self:
        if not self.trellis:
            return self
        if self.target in _GPUS:
            raise FieldError(
                ("trellis",),
                f"a trellis is decoded by operators that {self.target} does not fold; leave trellis out, or ask for "
                "the target ort-cpu or portable",
            )
        plain = self.granularity == "channel" and self.weight_format == "int" and self.symmetric
        if not plain or self.rounding not in {"gptq", *TUNED}:
            raise FieldError(
                ("trellis",),
                "a trellis codes integers with a step a channel and no zero points, rounded by GPTQ: leave trellis "
                "out, or ask for granularity channel, weight_format int, symmetric true and rounding gptq",
            )
        return self

    @model_validator(mode="after")
    def _open_activations_are_solved(self) -> Self:
        if self.open_activations and self.allocation != "optimal":
            raise FieldError(
                ("allocation",),
                f"{self.allocation} orders the bits of weights alone; name one activation_bits, or allocate optimally",
            )
        if self.open_activations and self.target != "ort-cpu":
            raise FieldError(
                ("activation_bits",),
                f"activation_bits are chosen layer by layer for ort-cpu alone, not for {self.target}",
            )
        return self

    @property
    def turned_steps(self) -> bool:
        """Whether steps may be negative: what other runtimes make of that is not known."""
        return self.target == "ort-cpu"

    @property
    def open_activations(self) -> tuple[int, ...]:
        """Bits of activations that are chosen from layer by layer; empty where all layers have the same."""
        return self.activation_bits if isinstance(self.activation_bits, tuple) else ()

    @property
    def default_activation_bits(self) -> int:
        """Bits of the activations of layers that no choice or rule says anything about."""
        return KERNEL_BITS if isinstance(self.activation_bits, tuple) else self.activation_bits

    @field_validator("sensitivity")
    @classmethod
    def _gives_scores(cls, method: SensitivityMethod) -> SensitivityMethod:
        if method == "orm":
            raise ValueError(
                "orm compares layers and gives no loss increase to plan with; `analyze` takes it"
            )
        return method


class PlanSpec(AsWritten):
    """A new plan from the tables of an ended job; budgets by name, `pin` and `exclude` are read as shorthand.

    Attributes:
        budget: What the result may cost. An accuracy band is not among it: that takes files, which a job makes.
        allocation: How bits are chosen; `ompq` needs importances that only a job has.
        rules: Pins, exclusions and limits on top of those the tables were made under.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    short_words: ClassVar[tuple[str, ...]] = (
        *("pin", "exclude"),
        *(name for name in BUDGETS if name not in {"max_drop", "confidence"}),
    )

    budget: Budget = Budget()
    allocation: Literal["optimal", "hawq_v2"] = "optimal"
    rules: tuple[LayerRule, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _expand_short(cls, data: Any) -> Any:
        return expand_rules(expand_budget(data)) if isinstance(data, dict) else data

    @field_validator("rules")
    @classmethod
    def _weights_only(cls, rules: tuple[LayerRule, ...]) -> tuple[LayerRule, ...]:
        if given := [rule.match for rule in rules if rule.activation_bits is not None]:
            raise ValueError(
                f"rule {given[0]!r} changes how a layer runs, which the tables were made for; "
                "ask for activation_bits in a quantization"
            )
        return rules

    @field_validator("budget")
    @classmethod
    def _no_band(cls, budget: Budget) -> Budget:
        if budget.max_drop is not None:
            raise ValueError("an accuracy band is kept by measuring files; ask for it in a quantization")
        return budget
