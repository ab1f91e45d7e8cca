from typing import Any

import onnx_ir as ir
import pytest
import torch

from quant_core.errors import ModelError, SpecError
from quant_core.executor import compile_model
from quant_core.sensitivity import Objective, choose_loss, find_sample_axes

FEEDS = {
    "image": torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    "tokens": torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(1)),
}
INPUTS = "float[N, 3, 8, 8] image, float[N, T, 5] tokens"
WEIGHTS = {
    "conv": "float[6, 3, 1, 1]",
    "dense": "float[5, 9]",
    "head": "float[6, 4]",
    "one": "float[6, 1]",
}


def guess(
    body: str, outputs: str = "float[N, C] y", labels: Any = None, loss: Any = "auto", weights: Any = None
) -> Objective:
    counts = {"conv": 18, "dense": 45, "head": 24, "one": 6}
    used = ", ".join(
        f"{WEIGHTS[name]} {name} = {{{', '.join(str((7 * i) % 11 / 10 - 0.5) for i in range(count))}}}"
        for name, count in counts.items()
    )
    constants = "int64[2] maps = {2, 3}, int64[1] middle = {1}, int64[2] flat = {0, -1}, int64 last = {-1}"
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        net ({INPUTS}) => ({outputs}) <{used}, {constants}> {{ {body} }}"""
    )
    for value in model.graph.initializers.values():
        assert value.const_value is not None
    program = compile_model(model)
    with torch.no_grad():
        values = program.evaluate(FEEDS)
    return choose_loss(model, values, 4, find_sample_axes(program, FEEDS, values), labels, loss, weights)


FEATURES = "c = Conv(image, conv) r = Relu(c) g = GlobalAveragePool(r) f = Flatten(g)"


@pytest.mark.parametrize(
    ("body", "kind", "tensor"),
    [
        (f"{FEATURES} y = Gemm(f, head)", "kl", "y"),
        ("c = Conv(image, conv) g = GlobalAveragePool(c) y = Flatten(g)", "kl", "y"),
        (f"{FEATURES} z = Gemm(f, head) y = Softmax(z)", "kl", "z"),
        (f"{FEATURES} z = Gemm(f, head) y = LogSoftmax(z)", "kl", "z"),
        (f"{FEATURES} z = Gemm(f, head) e = Exp(z) s = ReduceSum(e, middle) y = Div(e, s)", "kl", "y"),
        (f"{FEATURES} z = Gemm(f, head) y = Sigmoid(z)", "squared_error", "y"),
        (f"{FEATURES} z = Gemm(f, head) scores = Sigmoid(z) y = Identity(scores)", "squared_error", "y"),
        (f"{FEATURES} y = Gemm(f, one)", "squared_error", "y"),
        (f"{FEATURES} y = Identity(f)", "squared_error", "y"),
        (f"{FEATURES} z = Gemm(f, head) y = LpNormalization(z)", "squared_error", "y"),
        (f"{FEATURES} z = Gemm(f, head) n = ReduceL2(z, middle) y = Div(z, n)", "squared_error", "y"),
        (
            "z = MatMul(tokens, dense) m = ReduceMean<keepdims = 0>(z, middle) y = Tanh(m)",
            "squared_error",
            "y",
        ),
    ],
)
def test_guesses_for_one_row_a_sample(body: str, kind: str, tensor: str) -> None:
    objective = guess(body)
    (term,) = objective.terms
    assert (term.kind, term.tensor) == (kind, tensor)
    assert objective.guessed is not None
    assert "'y'" in objective.guessed


def test_sequences_of_logits_are_told_from_token_embeddings() -> None:
    (logits,) = guess("y = MatMul(tokens, dense)", "float[N, T, C] y").terms
    assert logits.kind == "kl"
    (embedding,) = guess("m = MatMul(tokens, dense) y = Tanh(m)", "float[N, T, C] y").terms
    assert embedding.kind == "squared_error"
    (named,) = guess("embeddings = MatMul(tokens, dense)", "float[N, T, C] embeddings").terms
    assert named.kind == "squared_error"


def test_maps_are_compared_by_squared_error() -> None:
    (term,) = guess("y = Conv(image, conv)", "float[N, C, H, W] y").terms
    assert term.kind == "squared_error"


def test_labels_tell_which_output_holds_classes() -> None:
    labels = torch.tensor([0, 3, 1, 2])
    pooled = f"{FEATURES} y = Identity(f)"
    assert guess(pooled).name == "squared_error"
    objective = guess(pooled, labels=labels)
    assert objective.name == "kl"
    assert "6 classes that the labels number" in (objective.guessed or "")
    unfit = guess(pooled, labels=torch.tensor([0, 3, 1, 6]))
    assert unfit.name == "squared_error"
    assert "fit no output" in (unfit.guessed or "")


def test_cross_entropy_is_there_when_asked_for() -> None:
    labels = torch.tensor([0, 3, 1, 2])
    (term,) = guess(f"{FEATURES} z = Gemm(f, head) y = Softmax(z)", labels=labels, loss="cross_entropy").terms
    assert (term.kind, term.tensor) == ("cross_entropy", "z")


def test_several_outputs_count_and_integers_do_not() -> None:
    body = f"{FEATURES} logits = Gemm(f, head) boxes = Sigmoid(f) best = ArgMax(logits)"
    objective = guess(body, "float[N, C] logits, float[N, D] boxes, int64[N, 1] best")
    assert [(term.output, term.kind) for term in objective.terms] == [
        ("logits", "kl"),
        ("boxes", "squared_error"),
    ]
    assert objective.name == "kl + squared_error"
    assert objective.terms[1].weight != 1


def test_outputs_are_weighted_as_asked() -> None:
    body = f"{FEATURES} logits = Gemm(f, head) boxes = Sigmoid(f)"
    outputs = "float[N, C] logits, float[N, D] boxes"
    plain = guess(body, outputs)
    weighted = guess(body, outputs, weights={"boxes": 0.25})
    assert [term.weight for term in weighted.terms] == [plain.terms[0].weight, plain.terms[1].weight / 4]
    assert weighted.name == "kl + squared_error (boxes x 0.25)"
    generator = torch.Generator().manual_seed(0)
    values = {
        name: torch.randn(4, width, generator=generator) for name, width in (("logits", 4), ("boxes", 6))
    }
    moved = {name: value + 0.1 * value.square() for name, value in values.items()}

    def loss(objective: Objective) -> torch.Tensor:
        return objective.per_sample(objective.rows(moved, 4), objective.rows(values, 4), None)

    alone = guess(body, outputs, weights={"logits": 0})
    assert [term.output for term in alone.terms] == ["boxes"]
    torch.testing.assert_close(loss(weighted), loss(plain) - 0.75 * loss(alone))


def test_weights_of_nothing_are_refused() -> None:
    body = f"{FEATURES} logits = Gemm(f, head) best = ArgMax(logits)"
    outputs = "float[N, C] logits, int64[N, 1] best"
    with pytest.raises(SpecError, match="'best'") as refused:
        guess(body, outputs, weights={"best": 2.0})
    assert "'logits'" in str(refused.value)
    with pytest.raises(SpecError, match="weight 0"):
        guess(body, outputs, weights={"logits": 0.0})


def test_logits_and_their_softmax_count_once() -> None:
    objective = guess(f"{FEATURES} z = Gemm(f, head) p = Softmax(z)", "float[N, C] z, float[N, C] p")
    assert [term.tensor for term in objective.terms] == ["z"]


def test_softmax_over_channels_of_a_map_is_averaged_over_pixels() -> None:
    objective = guess("z = Conv(image, conv) y = Softmax<axis = 1>(z)", "float[N, C, H, W] y")
    (term,) = objective.terms
    assert (term.kind, term.tensor, term.axis) == ("kl", "z", 1)
    z, q = torch.randn(2, 4, 6, 3, 5, generator=torch.Generator().manual_seed(0)).unbind()
    found = objective.per_sample(objective.rows({"z": q}, 4), objective.rows({"z": z}, 4), None)
    expected = torch.nn.functional.kl_div(
        q.log_softmax(1), z.log_softmax(1), log_target=True, reduction="none"
    ).sum(dim=1)
    torch.testing.assert_close(found, expected.mean(dim=(1, 2)))


def test_only_integers_are_refused() -> None:
    with pytest.raises(ModelError, match="no output is a float tensor"):
        guess(f"{FEATURES} y = ArgMax(f)", "int64[N, 1] y")


def test_sizes_that_depend_on_values_are_refused() -> None:
    # As a decoder cuts its buffer at the step it stopped at.
    zero = "z = Constant<value_ints = [0]>() o = Constant<value_ints = [1]>()"
    steps = "h = ReduceMax<keepdims = 0>(tokens) i = Cast<to = 7>(h) e = Reshape(i, o) n = Add(e, o)"
    with pytest.raises(ModelError, match="fixed number of entries"):
        guess(f"{zero} {steps} y = Slice(tokens, z, n, o)", "float[N, K, 5] y")
    moved = guess(
        f"{zero} {steps} m = Sub(n, n) k = Add(m, o) y = Slice(tokens, m, k, o)", "float[N, K, 5] y"
    )
    assert [term.output for term in moved.terms] == ["y"]


def test_selections_of_varying_size_are_refused() -> None:
    with pytest.raises(ModelError, match="fixed number of entries"):
        guess("p = Relu(tokens) i = NonZero(p) t = Transpose(i) y = GatherND(p, t)", "float[K] y")


def test_selections_may_be_written_back() -> None:
    # As a mixture of experts adds up what each made of the rows that it was given.
    picked = "p = Flatten(tokens) i = NonZero(p) j = Transpose(i) v = GatherND(p, j) q = Mul(p, p)"
    assert guess(f"{picked} y = ScatterND(q, j, v)", "float[N, K] y").name == "squared_error"


def test_sizes_and_constants_may_be_selected_from() -> None:
    zeros = "n = Shape(tokens) c = ConstantOfShape(n) i = NonZero(c) k = ReduceSum(i) z = CastLike(k, tokens)"
    assert guess(f"{zeros} y = Add(tokens, z)", "float[N, T, C] y").name == "squared_error"


def test_what_was_asked_for_must_fit() -> None:
    body = f"{FEATURES} y = Gemm(f, head)"
    with pytest.raises(SpecError, match="needs labels"):
        guess(body, loss="cross_entropy")
    with pytest.raises(SpecError, match="not class numbers"):
        guess(body, loss="cross_entropy", labels=torch.tensor([0, 3, 1, 4]))
    with pytest.raises(SpecError, match="no output holds"):
        guess(f"{FEATURES} y = Gemm(f, one)", loss="kl")
    asked = guess(body, loss="squared_error")
    assert asked.guessed is None
    assert asked.name == "squared_error"


def test_samples_may_lie_along_another_axis() -> None:
    objective = guess("m = MatMul(tokens, dense) y = Transpose<perm = [1, 0, 2]>(m)", "float[T, N, C] y")
    (term,) = objective.terms
    assert (term.kind, term.sample_axis) == ("kl", 1)


def told(labels: Any = None, **outputs: torch.Tensor) -> Objective:
    """The loss of outputs that linear layers end in, with these values."""
    declared = ", ".join(f"float[N, {tensor.shape[1]}] {name}" for name, tensor in outputs.items())
    weights = ", ".join(
        f"float[1, {tensor.shape[1]}] w_{name} = {{{', '.join(['1'] * tensor.shape[1])}}}"
        for name, tensor in outputs.items()
    )
    body = " ".join(f"{name} = Gemm(x, w_{name})" for name in outputs)
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]> net (float[N, 1] x) => ({declared}) <{weights}> {{ {body} }}"""
    )
    samples = len(next(iter(outputs.values())))
    return choose_loss(model, outputs, samples, dict.fromkeys(outputs, 0), labels)


def test_the_output_that_the_labels_are_right_about_comes_first() -> None:
    generator = torch.Generator().manual_seed(0)
    wide, narrow = torch.randn(8, 20, generator=generator), torch.randn(8, 5, generator=generator)
    found = told(narrow.argmax(1), wide=wide, narrow=narrow)
    assert [term.output for term in found.terms] == ["narrow", "wide"]
    labels = (narrow.argmax(1) + 1) % 5
    wide[range(8), labels] = 9
    found = told(labels, wide=wide, narrow=narrow)
    assert [term.output for term in found.terms] == ["wide", "narrow"]
    assert "'wide' holds the 20 classes that the labels number" in (found.guessed or "")


@pytest.mark.parametrize("name", ["y", "logits"])
@pytest.mark.parametrize(("gap", "kind"), [(60.0, "squared_error"), (12.0, "kl")])
def test_answers_beyond_doubt_are_a_regression(name: str, gap: float, kind: str) -> None:
    """Where all other classes have next to no probability, a divergence is nothing but what float32 rounds away."""
    values = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    values[range(8), [0, 1, 2, 3] * 2] += gap
    found = told(**{name: values})
    assert found.name == kind
    assert found.terms[0].holds_classes


@pytest.mark.parametrize(
    ("scale", "offset", "kind"),
    [(1.0, 0.0, "kl"), (1e-3, 0.0, "squared_error"), (30.0, 100.0, "squared_error"), (30.0, 0.0, "kl")],
)
def test_values_that_are_no_scores_of_classes_are_a_regression(
    scale: float, offset: float, kind: str
) -> None:
    values = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    objective = told(y=scale * values + offset * torch.arange(4))
    assert objective.name == kind
