"""Looks at every torch operation of a kernel before it runs: how much it will write, and at what cost.

What a kernel writes follows from the sizes of its operands and the values it reads as numbers, so each combination of
these is looked at once; operators that cannot make much out of little are not looked at when their operands are small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from quant_core.executor.budget import CALL, STEP, Budget
from quant_core.executor.registry import Kernel
from quant_core.executor.step import Step

_CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})
# Operators whose tensors, those in between included, have no more elements than the product of their operands has.
_MODEST = frozenset(
    """
    Abs Add And ArgMax ArgMin BatchNormalization Cast CastLike Ceil Clip Concat Cos Div Elu Equal Erf
    Exp Flatten Floor Gather GatherElements Gelu Gemm GlobalAveragePool Greater GreaterOrEqual
    HardSigmoid HardSwish Identity LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul
    Max Min Mod Mul Neg Not Or Pow PRelu Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    Relu Reshape Round RMSNormalization Shape Sigmoid Sign Sin Size Slice Softmax Softplus Split Sqrt
    Squeeze Sub Sum Swish Tanh Transpose Unsqueeze Where Xor
    """.split()
)
_QUICK = 1 << 16
_READ_WINDOW = 4
_REMEMBERED = 256
_READ = 64

Sizes = tuple[float, float]
"""Elements of the largest tensor made, and work."""


def admit(step: Step, kernel: Kernel, arguments: Sequence[Any], budget: Budget) -> Any:
    """Calls a kernel within a budget.

    Args:
        step: The step.
        kernel: Its kernel, or what does the same over its first argument.
        arguments: Its arguments.
        budget: What is left.

    Returns:
        What the kernel returns.
    """
    budget.spend(STEP)
    modest = step.op in _MODEST
    if step.op in _CONTROL or (modest and _reach(arguments) <= _QUICK):
        return kernel(*arguments)
    key = _key(arguments, () if modest else step.host_inputs)
    work = None if key is None else step.costs.get(key)
    if work is not None:
        budget.spend(work)
        return kernel(*arguments)
    with Guard(budget) as guard:
        result = kernel(*arguments)
    if key is not None:
        if len(step.costs) >= _REMEMBERED:
            step.costs.clear()
        step.costs[key] = guard.spent
    return result


def _reach(arguments: Sequence[Any]) -> int:
    """The product of the operands' elements."""
    product = 1
    for value in arguments:
        if isinstance(value, Tensor):
            product *= value.numel() or 1
    return product


def _key(arguments: Sequence[Any], read: Collection[int]) -> Any:
    """What a kernel's sizes follow from; None if that cannot be told."""
    key: list[Any] = []
    for position, value in enumerate(arguments):
        if isinstance(value, Tensor):
            key.append(value.shape)
            if position in read:
                if value.numel() > _READ:
                    return None
                try:
                    key.append(tuple(value.detach().reshape(-1).tolist()))
                except RuntimeError:
                    # A tensor inside a function transform has no values of its own.
                    return None
        elif value is not None:
            return None
        else:
            key.append(None)
    return tuple(key)


class Guard(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Asks the budget before each torch operation runs.

    Attributes:
        spent: Work seen so far.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.budget = budget
        self.spent = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing here is compiled by torch; to be left out of that would import its whole compiler, which takes 3 s.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        cost = CALL
        if not func.is_view:
            elements, work = estimate(func, args, kwargs)
            self.budget.claim(elements)
            cost += int(work)
        self.spent += cost
        self.budget.spend(cost)
        return func(*args, **kwargs)


def estimate(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sizes:
    """Sizes of what an operation of torch will write, from the sizes of its operands.

    Args:
        func: The operation, one overload.
        args: Its positional arguments.
        kwargs: Its other arguments.

    Returns:
        Elements of the largest tensor made, and work: multiply-adds or elements written. Zero where the operands
        do not fit each other, since the operation itself will say so.
    """
    rule = _RULES.get(func.overloadpacket.__name__)
    try:
        if rule is not None:
            return rule(args)
        if torch.Tag.pointwise in func.tags:
            return _same(_broadcast(args, kwargs))
        elements, work = _by_meta(func, args, kwargs)
        beyond = _BEYOND.get(func.overloadpacket.__name__)
        return elements, work if beyond is None else work + beyond(args, elements)
    except Exception:
        return 0.0, 0.0


def _same(elements: float) -> Sizes:
    return elements, elements


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _broadcast(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    shapes = [value.shape for value in _tensors((*args, *kwargs.values()))]
    if len(shapes) == 1:
        return math.prod(shapes[0])
    return math.prod(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def _first(args: tuple[Any, ...]) -> Sizes:
    return _same(args[0].numel())


def _sized(args: tuple[Any, ...]) -> Sizes:
    return _same(math.prod(args[0]))


def _resized(args: tuple[Any, ...]) -> Sizes:
    return _same(math.prod(args[1]))


def _joined(args: tuple[Any, ...]) -> Sizes:
    return _same(sum(value.numel() for value in args[0]))


def _convolution(args: tuple[Any, ...]) -> Sizes:
    x, weight, _, strides, pads, dilations, transposed, extra, group = args[:9]
    axes = range(x.dim() - 2)

    def at(values: Sequence[int], axis: int) -> int:
        return values[axis] if len(values) > 1 else values[0]

    places = 1
    for axis in axes:
        reach = at(dilations, axis) * (weight.shape[2 + axis] - 1) + 1
        size, pad, stride = x.shape[2 + axis], 2 * at(pads, axis), at(strides, axis)
        if transposed:
            places *= max((size - 1) * stride + reach - pad + at(extra, axis), 0)
        else:
            places *= max((size + pad - reach) // stride + 1, 0)
    if transposed:
        return x.shape[0] * weight.shape[1] * group * places, x.numel() * weight[0].numel()
    return x.shape[0] * weight.shape[0] * places, x.shape[0] * places * weight.numel()


def _packed_convolution(args: tuple[Any, ...]) -> Sizes:
    x, weight, bias, pads, strides, dilations, group = args[:7]
    return _convolution((x, weight, bias, strides, pads, dilations, False, None, group))


def _product(a: Tensor, b: Tensor) -> Sizes:
    made = a.numel() // max(a.shape[-1], 1) * b.shape[-1]
    return made, made * a.shape[-1]


def _recurrent(args: tuple[Any, ...]) -> Sizes:
    x, weights = args[0], sum(value.numel() for value in _tensors(args[1:]))
    return x.numel() + x.shape[0] * x.shape[1] * args[2].shape[0], x.shape[0] * x.shape[1] * weights


def _ordered(each: int) -> Callable[[tuple[Any, ...]], Sizes]:
    def rule(args: tuple[Any, ...]) -> Sizes:
        elements = args[0].numel()
        return elements, each * elements * elements.bit_length()

    return rule


def _windows(axes: int) -> Callable[[tuple[Any, ...], float], float]:
    def reads(args: tuple[Any, ...], elements: float) -> float:
        kernel = args[1]
        window: int = math.prod(kernel if len(kernel) > 1 else [*kernel] * axes)
        return _READ_WINDOW * elements * window

    return reads


def _transform(_args: tuple[Any, ...], elements: float) -> float:
    return 4 * elements * int(elements).bit_length()


def _elimination(args: tuple[Any, ...], elements: float) -> float:
    return elements * float(args[0].shape[-1])


# Operations that write about as much as their first operand holds.
_LIKE_FIRST = """
    _softmax _log_softmax clone _to_copy native_layer_norm native_batch_norm copy_
    _native_batch_norm_legit_no_training sum mean amax amin max min argmax argmin cumsum nonzero
    any all prod var_mean flip masked_select linalg_vector_norm native_group_norm empty_like
    ones_like zeros_like full_like lift_fresh detach _local_scalar_dense native_dropout cudnn_batch_norm
    scatter
""".split()

_RULES: dict[str, Callable[[tuple[Any, ...]], Sizes]] = {
    **dict.fromkeys(("full", "zeros", "ones", "empty", "rand", "randn"), _sized),
    **dict.fromkeys(("new_full", "new_zeros", "new_ones", "new_empty"), _resized),
    **dict.fromkeys(("cat", "stack"), _joined),
    **dict.fromkeys(_LIKE_FIRST, _first),
    "convolution": _convolution,
    "_convolution_pointwise": _packed_convolution,
    "_reorder_convolution_weight": _first,
    "mm": lambda args: _product(args[0], args[1]),
    "bmm": lambda args: _product(args[0], args[1]),
    "addmm": lambda args: _product(args[1], args[2]),
    "baddbmm": lambda args: _product(args[1], args[2]),
    "mkldnn_rnn_layer": _recurrent,
    # Values are compared many times; rows one element after another.
    **dict.fromkeys(("sort", "topk"), _ordered(2)),
    **dict.fromkeys(("_unique2", "unique_dim"), _ordered(32)),
}

# Work beyond what is written.
_BEYOND: dict[str, Callable[[tuple[Any, ...], float], float]] = {
    **dict.fromkeys(("max_pool2d_with_indices", "avg_pool2d"), _windows(2)),
    **dict.fromkeys(("max_pool3d_with_indices", "avg_pool3d"), _windows(3)),
    **dict.fromkeys(("_fft_r2c", "_fft_c2r", "_fft_c2c"), _transform),
    **dict.fromkeys(("_linalg_det", "linalg_inv_ex"), _elimination),
}


def _by_meta(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sizes:
    """Lets torch's meta device work out the shapes; slower than a rule, and right for everything it knows."""

    def placed(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        if isinstance(value, (list, tuple)):
            return type(value)(placed(item) for item in value)
        return value

    named = {name: placed(value) for name, value in kwargs.items()}
    if "device" in named:
        named["device"] = torch.device("meta")
    made = [value.numel() for value in _tensors((func(*placed(args), **named),))]
    return (max(made), sum(made)) if made else (0.0, 0.0)
