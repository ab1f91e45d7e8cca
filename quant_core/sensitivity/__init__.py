"""Sensitivity: how much the loss rises when a layer gets few bits, one estimator a file."""

from quant_core.sensitivity.batches import Batch, activation_bytes, split_batches
from quant_core.sensitivity.curvature.traces import TraceEstimate
from quant_core.sensitivity.estimators.activations import (
    ActivationTraces,
    activation_errors,
    activation_scores,
    activation_traces,
)
from quant_core.sensitivity.estimators.eigenvalues import EigenvalueEstimate, block_order, hawq
from quant_core.sensitivity.estimators.fisher import fisher
from quant_core.sensitivity.estimators.gauss_newton import gauss_newton, gauss_newton_exact
from quant_core.sensitivity.estimators.gnb import gnb, gnb_diagonal
from quant_core.sensitivity.estimators.hutch_pp import hutch_plus_plus
from quant_core.sensitivity.estimators.hutchinson import hawq_v2
from quant_core.sensitivity.estimators.interaction import Interactions, interactions
from quant_core.sensitivity.estimators.inverse_fisher import InverseFisher, inverse_fisher
from quant_core.sensitivity.estimators.kfac import KroneckerFactors, kfac
from quant_core.sensitivity.estimators.orthogonality import ompq_importance, orm
from quant_core.sensitivity.estimators.output import LossIncrease, output
from quant_core.sensitivity.estimators.path_integral import ElementIntegral, pqi, pqi_elements
from quant_core.sensitivity.estimators.spectrum import Spectrum, spectrum
from quant_core.sensitivity.loss import choose_loss
from quant_core.sensitivity.objective import Objective, Term
from quant_core.sensitivity.question import Question
from quant_core.sensitivity.sample_axes import find_sample_axes
from quant_core.sensitivity.table import Answer, answer, missing_scores

__all__ = [
    "ActivationTraces",
    "Answer",
    "Batch",
    "EigenvalueEstimate",
    "ElementIntegral",
    "Interactions",
    "InverseFisher",
    "KroneckerFactors",
    "LossIncrease",
    "Objective",
    "Question",
    "Spectrum",
    "Term",
    "TraceEstimate",
    "activation_bytes",
    "activation_errors",
    "activation_scores",
    "activation_traces",
    "answer",
    "block_order",
    "choose_loss",
    "find_sample_axes",
    "fisher",
    "gauss_newton",
    "gauss_newton_exact",
    "gnb",
    "gnb_diagonal",
    "hawq",
    "hawq_v2",
    "hutch_plus_plus",
    "interactions",
    "inverse_fisher",
    "kfac",
    "missing_scores",
    "ompq_importance",
    "orm",
    "output",
    "pqi",
    "pqi_elements",
    "spectrum",
    "split_batches",
]
