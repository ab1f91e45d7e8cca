"""Bring a model into the one form that every later stage expects."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from quant_core.errors import ModelError
from quant_core.ingest.passes.annotations import DropAnnotations
from quant_core.ingest.passes.batch_norm import FoldBatchNorm
from quant_core.ingest.passes.body_names import NameBodyNodes
from quant_core.ingest.passes.conv_padding import PadInConvolutions
from quant_core.ingest.passes.dead_uses import DropDeadUses
from quant_core.ingest.passes.domain import ShortDomain
from quant_core.ingest.passes.einsum import EinsumToMatMul
from quant_core.ingest.passes.equal_weights import ShareEqualWeights
from quant_core.ingest.passes.experimental import SpellOutExperimental
from quant_core.ingest.passes.external import AttachExternalData
from quant_core.ingest.passes.float_types import ComputeInFloat32
from quant_core.ingest.passes.folding import Fold
from quant_core.ingest.passes.fused_layers import UnfuseLayers
from quant_core.ingest.passes.gather_rows import GatherRows
from quant_core.ingest.passes.gelu import FuseGelu
from quant_core.ingest.passes.hard_sigmoid import FuseHardSigmoid
from quant_core.ingest.passes.identity import ResolveIdentity
from quant_core.ingest.passes.large_constants import ReadLargeConstantsWhole
from quant_core.ingest.passes.layouts import MeetTranspositions
from quant_core.ingest.passes.merged_axes import MergeAxes
from quant_core.ingest.passes.no_op import NoOpsToIdentity
from quant_core.ingest.passes.opset import RaiseOpset
from quant_core.ingest.passes.plane_means import PoolMeans
from quant_core.ingest.passes.pointwise import PointwiseToMatMul
from quant_core.ingest.passes.simplified_norm import SpellOutSimplifiedNorm
from quant_core.ingest.passes.stated_defaults import StateDefaults
from quant_core.ingest.passes.tabular import SpellOutTabular
from quant_core.ingest.passes.tied_table import ReadTiedTable
from quant_core.ingest.passes.unknown_axes import ForgetNegativeAxes

UNPACKING_DOMAIN = "bitwright"
"""Functions that put packed codes together, in files this engine wrote: inlined, the codes would be stored unpacked."""


def passes() -> tuple[ir.passes.InPlacePass, ...]:
    """List the rewrites in the order they are applied.

    Returns:
        New pass objects.
    """
    return (
        ShortDomain(),
        ForgetNegativeAxes(),
        common.RemoveInitializersFromInputsPass(),
        # Inlined within functions that nothing calls, calls may grow without an end: the size of the graph bounds none.
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.InlinePass(lambda function: function.domain != UNPACKING_DOMAIN),
        AttachExternalData(),
        SpellOutSimplifiedNorm(),
        SpellOutExperimental(),
        RaiseOpset(),
        StateDefaults(),
        common.TopologicalSortPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        SpellOutTabular(),
        NoOpsToIdentity(),
        ResolveIdentity(),
        UnfuseLayers(),
        ComputeInFloat32(),
        Fold(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        NoOpsToIdentity(),
        ResolveIdentity(),
        EinsumToMatMul(),
        GatherRows(),
        DropDeadUses(),
        MeetTranspositions(),
        FoldBatchNorm(),
        PadInConvolutions(),
        PointwiseToMatMul(),
        FuseHardSigmoid(),
        FuseGelu(),
        PoolMeans(),
        MergeAxes(),
        ShareEqualWeights(),
        ReadTiedTable(),
        common.RemoveUnusedNodesPass(),
        DropDeadUses(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        ReadLargeConstantsWhole(),
        DropAnnotations(),
        common.NameFixPass(),
        NameBodyNodes(),
    )


def normalise(model: ir.Model) -> ir.Model:
    """Rewrite a copy of a model without changing what it computes, but for the rounding of half and double precision.

    Afterwards the opset is at least 21, local functions are inlined but for those that unpack codes, every constant
    is an initializer, no initializer is a graph input or lies in another file, no Identity or Dropout stands between
    a weight and its readers, expressions of constants are folded, what runs between transpositions that undo each other
    runs without them, batch normalization is part of the layer in front
    of it where possible, zeros in front of a convolution and places cut off behind it are its own padding, a hard
    sigmoid or a GELU in pieces is one operator, a mean over the places of an image is a pool, layers in half or double
    precision are in float32, nothing is unused, and nodes have unique names, those inside of bodies too. Graph inputs
    and outputs keep names, types and dynamic axes.
    `alpha`, `beta` and `transB` of Gemm stay attributes, and MatMul followed by Add stays two nodes. Einsum with a
    constant is MatMul where it is one product, as is a convolution over single places between two transpositions, and
    GatherND of a constant's rows is Gather. Axes that a Transpose of five
    or more between two Reshapes keeps side by side are one. Weights that hold the same values and are read in the same
    way are one. A product with a transposed table that other nodes read as well becomes Gemm, so that the table stays
    one weight.

    Args:
        model: A model as `read_model` gives it; it is left as it is.

    Returns:
        The rewritten copy; unchanged tensors are shared with the original.

    Raises:
        ModelError: If a rewrite is impossible for this graph; names the rewrite.
        MemoryError: If there is no memory for one.
    """
    copy = model.clone()
    for rewrite in passes():
        try:
            rewrite(copy)
        except (ModelError, MemoryError):
            raise
        except Exception as error:
            raise ModelError(
                f"the graph cannot be rewritten ({type(rewrite).__name__}): {error}",
                remedy="Export it again with a newer exporter or opset.",
            ) from error
    _keep_dynamic_axes(copy, model)
    return copy


def _keep_dynamic_axes(copy: ir.Model, model: ir.Model) -> None:
    """Declare the axes of outputs dynamic that were, though inference may know their sizes."""
    for value, declared in zip(copy.graph.outputs, model.graph.outputs, strict=True):
        if value.shape is None or declared.shape is None or len(value.shape) != len(declared.shape):
            continue
        value.shape = ir.Shape(
            found if isinstance(said, int) and said >= 0 else None if isinstance(said, int) else said
            for found, said in zip(value.shape, declared.shape, strict=True)
        )
