"""What "worse" means for a model: chosen on request, or guessed from labels and graph with the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir
import torch

from quant_core.errors import ModelError, SpecError
from quant_core.ingest.varying_sizes import varying_tensors
from quant_core.sensitivity.objective import Objective, Term
from quant_core.spec import Loss

_SAME_VALUES = {"Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}
_LINEAR = {"Gemm", "MatMul", "Conv", "Einsum"}
_SAME_FOR_ALL = 0.02  # nats between the likeliest and the least likely class
_CERTAIN = 10.0  # nats between the two likeliest classes
_NO_DOUBT = 1e-9  # mean probability of all classes but the likeliest
_ENOUGH_ROWS = 8
_POOLING = {"GlobalAveragePool", "ReduceMean", "AveragePool"}
_SOUNDS_LIKE_CLASSES = re.compile(r"logit|prob|class|score", re.IGNORECASE)
_SOUNDS_LIKE_FEATURES = re.compile(r"embed|feature|hidden|pool|repr|vector|encod", re.IGNORECASE)


def choose_loss(
    model: ir.Model,
    outputs: Mapping[str, torch.Tensor],
    samples: int,
    axes: Mapping[str, int | None],
    labels: torch.Tensor | None = None,
    loss: Loss = "auto",
    weights: Mapping[str, float] | None = None,
) -> Objective:
    """Choose the loss.

    Where an output holds class scores the guess is the divergence from the float model's own class probabilities,
    also when there are labels: at the float weights its Gauss-Newton matrix is that of the labels' cross entropy, and
    a measured increase of it has no noise from single labels, which at 5 bits and more is larger than the increase
    itself (docs/sensitivity.md). Labels then only tell which output holds classes. Embeddings, regressions and maps
    get squared error. Outputs that are not float, that no axis ties to the samples, or that hold a selection of
    varying size do not count. Several squared errors are each divided by the output's mean square, so that none
    drowns the others.

    Args:
        model: The graph, which tells what an output is made by.
        outputs: Graph output name -> the float model's value on a few samples.
        samples: How many samples those values belong to.
        axes: Graph output name -> the axis that counts samples, as `find_sample_axes` gives it.
        labels: Integer classes, those of the samples or more, or None.
        loss: What was asked for; `auto` to guess.
        weights: Output name -> factor of its loss, on top of that balance; 0 leaves it out.

    Returns:
        The loss; `guessed` gives the reason where it was guessed.

    Raises:
        SpecError: If the loss asked for does not fit the outputs or needs labels, or a weight belongs to no output
            that counts.
        ModelError: If no output can carry a loss.
    """
    chosen = _choose(model, outputs, samples, axes, labels, loss)
    return _weigh(chosen, weights) if weights else chosen


def _weigh(objective: Objective, weights: Mapping[str, float]) -> Objective:
    counted = [term.output for term in objective.terms]
    if unknown := sorted(set(weights) - set(counted)):
        raise SpecError(
            f"no loss is taken on {', '.join(map(repr, unknown))}.",
            remedy=f"Name outputs that count: {', '.join(map(repr, counted))}.",
            where="loss_weights",
        )
    terms = tuple(
        replace(term, weight=term.weight * weights.get(term.output, 1.0))
        for term in objective.terms
        if weights.get(term.output, 1.0) > 0
    )
    if not terms:
        raise SpecError(
            "every output that counts has weight 0.", remedy="Leave one of them in.", where="loss_weights"
        )
    factors = tuple((name, weights[name]) for name in counted if name in weights)
    return replace(objective, terms=terms, factors=factors)


def _choose(
    model: ir.Model,
    outputs: Mapping[str, torch.Tensor],
    samples: int,
    axes: Mapping[str, int | None],
    labels: torch.Tensor | None,
    loss: Loss,
) -> Objective:
    guesses: list[tuple[Term, str]] = []
    varying = varying_tensors(model)
    for value in model.graph.outputs:
        name = value.name or ""
        tensor = outputs.get(name)
        if tensor is None or not tensor.is_floating_point() or tensor.dim() == 0:
            continue
        axis = axes.get(name)
        if axis is not None and name not in varying:
            guesses.append(_guess(value, tensor, axis))
    if not guesses:
        raise ModelError(
            "no output is a float tensor with a fixed number of entries for each sample, so no loss can be measured.",
            remedy="Export the model with its logits, scores, boxes or embeddings among the outputs.",
        )
    if loss == "squared_error":
        return Objective(_balance([_squared(term) for term, _ in guesses], outputs, samples))
    classes = [(term, why) for term, why in guesses if term.holds_classes]
    labelled = _labelled([term for term, _ in guesses], outputs, samples, labels)
    if loss == "kl":
        named = classes or [
            (t, w) for t, w in guesses if t.tensor == t.output and _class_count(t, outputs) > 1
        ]
        if not named:
            raise SpecError("no output holds one value a class.", remedy="Use squared_error.", where="loss")
        return Objective(tuple(replace(term, kind="kl", beyond_doubt=False) for term, _ in named))
    if loss == "cross_entropy":
        if labels is None:
            raise SpecError(
                "cross_entropy needs labels.", remedy="Add `labels` to the samples, or use kl.", where="loss"
            )
        if labelled is None:
            raise SpecError(
                "the labels are not class numbers of any output.",
                remedy="Give one integer a sample, from 0, below the number of classes.",
                where="loss",
            )
        return Objective((labelled,))
    if labelled is not None:
        # First, for the headline is of the first term.
        reading = f"holds the {_class_count(labelled, outputs)} classes that the labels number"
        others = [(term, why) for term, why in guesses if term.output != labelled.output]
        guesses = [(replace(labelled, kind="kl"), reading), *others]
    reason = "; ".join(f"output '{term.output}' {why}" for term, why in guesses)
    if labels is not None and labelled is None:
        reason += "; the labels fit no output's classes"
    return Objective(_balance([term for term, _ in guesses], outputs, samples), reason)


def _guess(value: ir.Value, tensor: torch.Tensor, sample_axis: int) -> tuple[Term, str]:
    name = value.name or ""
    squared = Term(name, name, "squared_error", sample_axis=sample_axis)
    made_by = _maker(value)
    op = made_by.op_type if made_by is not None else "nothing"
    if made_by is not None and op in {"Softmax", "LogSoftmax"} and sample_axis == 0:
        logits = made_by.inputs[0]
        axis = made_by.attributes.get_int("axis", -1)
        if logits is not None and logits.name:
            return Term(name, logits.name, "kl", axis), f"ends in {op}, so it is read as class probabilities"
    if tensor.dim() >= 2 and _sums_to_one(tensor):
        kind = Term(name, name, "kl", -1, sample_axis, probabilities=True)
        return kind, "adds up to 1, so it is read as class probabilities"
    if tensor.dim() < 2 or tensor.shape[-1] == 1 or sample_axis == tensor.dim() - 1:
        return squared, "holds single values, so it is read as a regression"
    if tensor.dim() > 3:
        return squared, f"has {tensor.dim()} axes, so it is read as a map"
    if op == "Sigmoid":
        return squared, "ends in Sigmoid, so each value is read by itself"
    if _SOUNDS_LIKE_FEATURES.search(name):
        return squared, "is named like features"
    if _SOUNDS_LIKE_CLASSES.search(name):
        reading = "is named like class scores"
    elif op in _LINEAR:
        if why := _no_scores(tensor):
            return squared, why
        reading = f"ends in a linear layer ({op}), so it is read as class scores"
    elif made_by is not None and tensor.dim() == 2 and _averages_convolution(made_by):
        reading = "averages a convolution, so it is read as class scores"
    else:
        return squared, f"ends in {op}, so it is read as an embedding or a regression"
    if _leaves_no_doubt(tensor):
        # All divergences would lie below what float32 resolves, and bits be given by chance.
        why = "would give every sample its class beyond doubt, so it is read as a regression"
        return replace(squared, beyond_doubt=True), why
    return Term(name, name, "kl", -1, sample_axis), reading


def _averages_convolution(node: ir.Node) -> bool:
    source = node.inputs[0] if node.op_type in _POOLING else None
    before = None if source is None else _maker(source)
    return before is not None and before.op_type == "Conv"


def _no_scores(tensor: torch.Tensor) -> str | None:
    """Why values cannot be scores of classes: their softmax says nothing about a sample."""
    rows = tensor.detach().float().reshape(-1, tensor.shape[-1])
    best = rows.topk(min(2, rows.shape[1]), dim=1)
    if float((rows.amax(1) - rows.amin(1)).median()) < _SAME_FOR_ALL:
        return "would give all classes the same probability, so it is read as a regression"
    same = len(rows) >= _ENOUGH_ROWS and bool((best.indices[:, 0] == best.indices[0, 0]).all())
    if same and float((best.values[:, 0] - best.values[:, -1]).median()) > _CERTAIN:
        return "would give every sample to one class for sure, so it is read as a regression"
    return None


def _leaves_no_doubt(tensor: torch.Tensor) -> bool:
    rows = torch.log_softmax(tensor.detach().double().reshape(-1, tensor.shape[-1]), 1)
    others = rows.scatter(1, rows.argmax(1, keepdim=True), -torch.inf).exp().sum(1)
    return float(others.mean()) < _NO_DOUBT


def _maker(value: ir.Value) -> ir.Node | None:
    # The node that gave the values, past those that only move them or add or multiply a constant.
    node = value.producer()
    while node is not None:
        inputs = [i for i in node.inputs if i is not None]
        if node.op_type in _SAME_VALUES:
            step = inputs[0]
        elif node.op_type in {"Add", "Sub", "Mul", "Div"}:
            varying = [i for i in inputs if i.const_value is None and _op(i) != "Constant"]
            if len(varying) != 1:
                return node
            step = varying[0]
        else:
            return node
        node = step.producer()
    return None


def _op(value: ir.Value) -> str | None:
    node = value.producer()
    return node.op_type if node is not None else None


def _sums_to_one(tensor: torch.Tensor) -> bool:
    if tensor.shape[-1] < 2 or not torch.isfinite(tensor).all():
        return False
    return bool((tensor >= 0).all() and ((tensor.sum(-1) - 1).abs() < 1e-3).all())


def _class_count(term: Term, outputs: Mapping[str, torch.Tensor]) -> int:
    shape = outputs[term.output].shape
    return int(shape[term.axis]) if len(shape) > 1 else 1


def _labelled(
    terms: list[Term], outputs: Mapping[str, torch.Tensor], samples: int, labels: torch.Tensor | None
) -> Term | None:
    # Of the outputs of one row a sample whose classes the labels can number, give the one that is right most often.
    if labels is None or labels.is_floating_point() or labels.numel() < samples or labels.dim() > 2:
        return None
    found: list[tuple[int, Term]] = []
    for term in terms:
        tensor = outputs[term.output]
        count = max(tensor.shape[1:], default=1)
        one_row = tensor.shape[0] == samples and tensor.numel() == samples * count
        if one_row and count > 1 and int(labels.min()) >= 0 and int(labels.max()) < count:
            axis = term.axis if term.kind == "kl" else list(tensor.shape).index(count, 1)
            answers = tensor.reshape(samples, count).argmax(1).to(labels.device)
            right = int((answers == labels.reshape(labels.shape[0], -1)[:samples, 0]).sum())
            found.append((right, replace(term, kind="cross_entropy", axis=axis, beyond_doubt=False)))
    return max(found, key=lambda each: each[0])[1] if found else None


def _squared(term: Term) -> Term:
    return Term(term.output, term.output, "squared_error", sample_axis=term.sample_axis)


def _balance(terms: list[Term], outputs: Mapping[str, torch.Tensor], samples: int) -> tuple[Term, ...]:
    # A graph that gives logits and their softmax would count the same divergence twice.
    terms = list({(term.tensor, term.kind): term for term in reversed(terms)}.values())[::-1]
    if len(terms) == 1:
        return tuple(terms)
    balanced = []
    for term in terms:
        energy = float(outputs[term.output].double().square().sum()) / samples
        weighted = term.kind == "squared_error" and energy > 0
        balanced.append(replace(term, weight=1.0 / energy) if weighted else term)
    return tuple(balanced)
