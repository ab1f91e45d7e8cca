"""What a user may ask for, and what comes back: pydantic models shared by engine, service and client."""

from quant_core.spec.analysis import AnalyzeSpec
from quant_core.spec.bits import DEFAULT_WEIGHT_BITS, FLOAT_BITS, WEIGHT_BITS, format_bits
from quant_core.spec.budget import AccuracyBand, Budget
from quant_core.spec.costs import FUSION_KINDS, CostTable, FusionGroup, FusionKind, LayerCosts
from quant_core.spec.evaluation import Evaluation
from quant_core.spec.job import (
    ENDED,
    RUNNING,
    STATE_OF,
    DeviceHealth,
    Health,
    JobFailure,
    JobInfo,
    JobKind,
    JobSpec,
    JobState,
    JobSummary,
    RunningState,
)
from quant_core.spec.latency import LatencyTable, LayerLatency
from quant_core.spec.layer_rule import LayerRule
from quant_core.spec.plan import BitPlan, LayerPlan, ParetoFront, ParetoPoint
from quant_core.spec.preflight import Preflight, PreflightLayer, PreflightTensor, PreflightWeight
from quant_core.spec.progress import STAGES, Progress, ProgressCallback, Stage
from quant_core.spec.report import (
    Latency,
    LayerReport,
    Metrics,
    ModelSummary,
    Report,
    Simulation,
    Timing,
)
from quant_core.spec.request import (
    Allocation,
    Loss,
    PlanSpec,
    QuantizeSpec,
    RangeMethod,
    Request,
    SensitivityMethod,
)
from quant_core.spec.sensitivity import LayerSensitivity, SensitivityTable
from quant_core.spec.trials import BandEvaluation, BandSearch, LayerMove, PlanTrial, RefinementRound
from quant_core.spec.weight_grid import FORMAT_BITS, FORMAT_BLOCK, Granularity, WeightFormat, WeightGrid
from quant_core.spec.weight_options import Equalize, Rounding, WeightOptions

__all__ = [
    "DEFAULT_WEIGHT_BITS",
    "ENDED",
    "FLOAT_BITS",
    "FORMAT_BITS",
    "FORMAT_BLOCK",
    "FUSION_KINDS",
    "RUNNING",
    "STAGES",
    "STATE_OF",
    "WEIGHT_BITS",
    "AccuracyBand",
    "Allocation",
    "AnalyzeSpec",
    "BandEvaluation",
    "BandSearch",
    "BitPlan",
    "Budget",
    "CostTable",
    "DeviceHealth",
    "Equalize",
    "Evaluation",
    "FusionGroup",
    "FusionKind",
    "Granularity",
    "Health",
    "JobFailure",
    "JobInfo",
    "JobKind",
    "JobSpec",
    "JobState",
    "JobSummary",
    "Latency",
    "LatencyTable",
    "LayerCosts",
    "LayerLatency",
    "LayerMove",
    "LayerPlan",
    "LayerReport",
    "LayerRule",
    "LayerSensitivity",
    "Loss",
    "Metrics",
    "ModelSummary",
    "ParetoFront",
    "ParetoPoint",
    "PlanSpec",
    "PlanTrial",
    "Preflight",
    "PreflightLayer",
    "PreflightTensor",
    "PreflightWeight",
    "Progress",
    "ProgressCallback",
    "QuantizeSpec",
    "RangeMethod",
    "RefinementRound",
    "Report",
    "Request",
    "Rounding",
    "RunningState",
    "SensitivityMethod",
    "SensitivityTable",
    "Simulation",
    "Stage",
    "Timing",
    "WeightFormat",
    "WeightGrid",
    "WeightOptions",
    "format_bits",
]
