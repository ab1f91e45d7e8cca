"""What was asked, found, chosen and measured. Sizes are those of files, latencies those of runs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from quant_core.spec.costs import FusionGroup
from quant_core.spec.plan import BitPlan, ParetoPoint
from quant_core.spec.preflight import PreflightPart
from quant_core.spec.request import QuantizeSpec
from quant_core.spec.trials import BandSearch, PlanTrial, RefinementRound


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)


class ModelSummary(_Value):
    """The model before and after.

    Attributes:
        name: File name of the float model.
        float_bytes: Bytes of the float model with its external data.
        quantized_bytes: Bytes of the quantized model.
        predicted_bytes: What the plan had predicted.
        budget_bytes: The limit; null if the size was left free.
        ratio: `quantized_bytes / float_bytes`.
        opset: Opset of the quantized model.
        data_file: Name of the second file that holds its tensors, beside `model.onnx`; null where one file holds all.
        parameters: Elements of all quantizable weights.
        macs: Multiply-accumulates per sample.
    """

    name: str
    float_bytes: int
    quantized_bytes: int
    predicted_bytes: int
    budget_bytes: int | None
    ratio: float
    opset: int
    parameters: int
    macs: int
    data_file: str | None = None


class LayerReport(_Value):
    """One layer: what it is, what it was given, and why.

    Attributes:
        name: The layer.
        op: Operator type.
        weight: Weight tensor.
        parameters: Number of weight elements.
        macs: Multiply-accumulates per sample.
        weight_bits: Bits of the weight; 32 is float.
        narrow_bits: Bits of the output channels that matter least; null where all take `weight_bits`.
        narrow_share: Share of the channels that these are.
        outliers: Weights that are stored apart from those, in 12 bits each; 0 for none.
        trellis: Whether its codes are those of a trellis.
        activation_bits: Bits of the layer's input; 32 is float.
        form: How it runs: `static`, `dynamic`, `block`, `gather`, `weight_only`, `wide` or `float`.
        kernel: Operator that runs it in onnxruntime's optimized graph; "folded at load" for a constant that is unpacked
            for operators that are no layers.
        bytes: Bytes of the weight in the file, scales included.
        trace: Tr(H_i); null where the method gives none.
        trace_stderr: Standard error of `trace`.
        sensitivity: Expected loss increase at the chosen bits.
        sensitivity_stderr: Standard error of `sensitivity`.
        reason: Why these bits.
        sqnr_db: Output SQNR of the quantized network against the float network, up to and with this layer, as
            onnxruntime runs them; null in reports of before, and where rounding sends an expert another number of rows.
        own_sqnr_db: Output SQNR of this layer alone, quantized against float on the float network's input.
    """

    name: str
    op: str
    weight: str
    parameters: int
    macs: int
    weight_bits: int
    narrow_bits: int | None = None
    narrow_share: float = 0.0
    outliers: int = 0
    trellis: bool = False
    activation_bits: int
    form: str
    kernel: str
    bytes: int
    trace: float | None
    trace_stderr: float | None
    sensitivity: float
    sensitivity_stderr: float | None
    reason: str
    sqnr_db: float | None = None
    own_sqnr_db: float | None = None

    @property
    def mean_bits(self) -> float:
        """Mean bits of its weights, without what outliers take."""
        narrow = self.weight_bits if self.narrow_bits is None else self.narrow_bits
        return self.weight_bits + self.narrow_share * (narrow - self.weight_bits)


class Metrics(_Value):
    """Quality of the quantized model on samples that decided nothing.

    Attributes:
        name: The headline metric: `top1` with labels, else `top1_agreement` or `mean_cosine`.
        float_: The headline metric of the float model; 1 by definition for agreement and cosine.
        quantized: The headline metric of the quantized model.
        samples: How many samples they were measured on.
        labelled: Whether labels were given.
        sqnr_db: 10 log10(sum y^2 / sum (y - yq)^2) over the first output.
        top1_agreement: Share of samples whose largest output is the same class; null for embeddings.
        mean_cosine: Mean cosine between float and quantized output.
        sqnr_db_by_output: The same signal-to-noise ratio for every output by name.
        interval: 95 % confidence interval of `quantized`; null for fewer than two samples or single values.
        change_interval: The same of `quantized - float`, both models on the same samples; null without labels.
    """

    name: str
    float_: float = Field(alias="float")
    quantized: float
    samples: int
    labelled: bool
    sqnr_db: float
    top1_agreement: float | None
    mean_cosine: float
    sqnr_db_by_output: dict[str, float] = {}
    interval: tuple[float, float] | None = None
    change_interval: tuple[float, float] | None = None


class Latency(_Value):
    """Time of one run in onnxruntime, float and quantized in turn.

    Attributes:
        float_: Median milliseconds of the float model; of a machine busy with other work the tenth percentile.
        quantized: The same of the quantized model.
        float_spread: Interquartile range of the float model's times, ms.
        quantized_spread: Interquartile range of the quantized model's times, ms.
        speedup: Median of the pairwise ratios float / quantized; on a busy machine the ratio of the two times.
        batch: Batch size.
        threads: Threads onnxruntime was given.
        runs: Number of timed pairs.
    """

    float_: float = Field(alias="float")
    quantized: float
    float_spread: float
    quantized_spread: float
    speedup: float
    batch: int
    threads: int
    runs: int


class Simulation(_Value):
    """How well the engine's own arithmetic foretold onnxruntime's.

    Attributes:
        predicted_sqnr_db: Output SQNR of the simulation against the float model.
        measured_sqnr_db: Output SQNR of onnxruntime against the float model, same samples.
        agreement_sqnr_db: SQNR between the simulation and onnxruntime.
        top1_agreement: Share of samples on which both name the same class; null for embeddings.
    """

    predicted_sqnr_db: float
    measured_sqnr_db: float
    agreement_sqnr_db: float
    top1_agreement: float | None


class Timing(_Value):
    """Wall seconds of one stage.

    Attributes:
        stage: The stage.
        seconds: Wall seconds.
    """

    stage: str
    seconds: float


class Report(_Value):
    """The whole story of one job.

    Attributes:
        version: Version of this format.
        model: The model before and after.
        spec: What was asked.
        loss: The loss used, and how it was chosen.
        plan: What was chosen.
        layers: One entry a layer, in graph order.
        metrics: Quality measured in onnxruntime.
        latency_ms: Time measured in onnxruntime.
        simulation: Prediction against measurement.
        pareto: The front as bytes and predicted loss.
        trials: Plans measured against each other before one was chosen.
        refinement: What each round of measuring around the plan did.
        band: The search for the smallest file inside an accuracy band; null if none was asked for.
        groups: Fusion groups of the graph, and whether they were tied.
        kept_parts: What was quantized in the model already and came out as it went in.
        warnings: What a user should know.
        timings: Wall seconds by stage.
        peak_memory_bytes: Peak resident memory of the process.
        seed: Seed of everything random.
        versions: Versions of what was involved.
    """

    version: int = 1
    model: ModelSummary
    spec: QuantizeSpec
    loss: str
    plan: BitPlan
    layers: tuple[LayerReport, ...]
    metrics: Metrics
    latency_ms: Latency
    simulation: Simulation
    pareto: tuple[ParetoPoint, ...]
    trials: tuple[PlanTrial, ...] = ()
    refinement: tuple[RefinementRound, ...] = ()
    band: BandSearch | None = None
    groups: tuple[FusionGroup, ...] = ()
    kept_parts: tuple[PreflightPart, ...] = ()
    warnings: tuple[str, ...] = ()
    timings: tuple[Timing, ...] = ()
    peak_memory_bytes: int
    seed: int
    versions: dict[str, str]
