"""What a runtime wants of a file: which forms, widths and types, at which opset, stored how."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from quant_core.export.placement.forms import Form
from quant_core.export.storage.unpacking import Storage
from quant_core.ingest.layer import Layer
from quant_core.spec import WeightFormat, WeightGrid

FormChoice = Callable[[Layer, ir.Model, int, int, WeightGrid], Form | None]
"""(layer, model, bits, activation bits, grid) -> how it runs; None where the runtime has nothing for it."""


@dataclass(frozen=True)
class Target:
    """A runtime that files are made for.

    Attributes:
        name: As users write it.
        form: How a layer runs at a width.
        opset: Widths in use -> the lowest opset of the file.
        exact_opset: Whether the file has that opset also where the model's own is later.
        storage: How codes lie in the file.
        rounding: Which activations are rounded. `kernels`: inputs and outputs of integer kernels, and everything
            between them that runs on integers too. `operands`: what weighted operators read, and the second operand of
            residual additions.
        blocks: Whether packed weights of float operators are read through DequantizeLinear in blocks; else through
            Cast and Mul.
        symmetric: Whether activations are signed, with 0 at code 0; else unsigned with a zero point.
        float8: Whether signed activations are E4M3 numbers in place of integers.
        formats: Floating formats of weights that it knows, where it does not know all.
        block_sizes: Sizes of blocks of integers that it knows, where it does not know all.
        integer_bias: Whether the bias of an integer Gemm with float output is stored in integers, without which
            onnxruntime dequantizes its weight in every run.
        norms_apart: Whether layer normalization is written so that no addition is fused with it.
        convolves_averages: Whether averages of windows in float are written as convolutions where these are faster.
        fuses_swish: Whether `x Sigmoid(x)` is one float operator, onnxruntime's QuickGelu, between integer kernels too.
        halves: Whether float tensors that float16 holds exactly, such as steps and corrected biases, are stored so,
            each behind a Cast.
        mixes_channels: Whether channels of one weight may be stored in two widths.
        decodes_trellis: Whether trellis-coded weights are decoded when a file is loaded.
        lays_out_inputs: Whether integer convolutions may read their input laid out anew, for a faster kernel.
        runs_here: Whether its kernels are those of onnxruntime on this machine's CPU.
    """

    name: str
    form: FormChoice
    opset: Callable[[Collection[int]], int]
    storage: Storage
    exact_opset: bool = False
    rounding: Literal["kernels", "operands"] = "kernels"
    blocks: bool = False
    symmetric: bool = False
    float8: bool = False
    formats: frozenset[WeightFormat] = frozenset()
    block_sizes: tuple[int, ...] = ()
    integer_bias: bool = False
    norms_apart: bool = False
    convolves_averages: bool = False
    fuses_swish: bool = False
    halves: bool = False
    mixes_channels: bool = False
    decodes_trellis: bool = False
    lays_out_inputs: bool = False
    runs_here: bool = False
