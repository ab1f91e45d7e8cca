"""The program against onnxruntime: on the trained demo model, on what torch exports, and the check itself."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from quant_core.errors import InternalError, ModelError
from quant_core.executor import Program, check_parity, compile_model

DATA = Path(__file__).parents[3] / "benchmarks" / "data"
RESNET = DATA / "resnet20_cifar10.onnx"


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    with np.load(DATA / "cifar10_calibration.npz") as held:
        return held["input"][:8]


def test_trained_resnet(images: np.ndarray) -> None:
    parity = check_parity(RESNET, compile_model(ir.load(RESNET)), {"input": images})
    assert parity.worst < 1e-5


def test_every_float_weight_has_finite_derivatives(images: np.ndarray) -> None:
    program = compile_model(ir.load(RESNET))
    weights = {name: weight.clone().requires_grad_() for name, weight in program.weights.items()}
    logits = program.evaluate({"input": torch.from_numpy(images)}, weights=weights)["logits"]
    gradients = torch.autograd.grad(logits.logsumexp(1).sum(), list(weights.values()), create_graph=True)
    products = torch.autograd.grad(
        sum(gradient.square().sum() for gradient in gradients), list(weights.values())
    )
    assert all(bool(tensor.isfinite().all()) for tensor in (*gradients, *products))


def test_the_first_tensor_that_parts_is_named(images: np.ndarray, tmp_path: Path) -> None:
    proto = onnx.load(RESNET)
    conv = [node for node in proto.graph.node if node.op_type == "Conv"][4]
    for tensor in proto.graph.initializer:
        if tensor.name == conv.input[1]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.1, tensor.name))
    other = tmp_path / "changed.onnx"
    onnx.save(proto, other)
    program = compile_model(ir.load(RESNET))
    with pytest.raises(InternalError, match=f"'{conv.output[0]}'"):
        check_parity(other, program, {"input": images})
    with pytest.raises(InternalError, match=f"'{conv.output[0]}'"):
        check_parity(other.read_bytes(), program, {"input": images})


def test_a_model_onnxruntime_refuses(images: np.ndarray) -> None:
    with pytest.raises(ModelError, match="onnxruntime cannot run"):
        check_parity(b"not a model", compile_model(ir.load(RESNET)), {"input": images})


def test_shapes_that_do_not_fit_are_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "wrong.onnx"
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]> net (float[n,6] x) => (float[n,5] y) { y = MatMul(x, w) }"""
    )
    right = onnx.ModelProto.FromString(model.SerializeToString())
    for each, rows in ((right, 6), (model, 7)):
        each.graph.initializer.append(numpy_helper.from_array(np.ones((rows, 5), np.float32), "w"))
    onnx.save(model, path)
    program = compile_model(ir.serde.deserialize_model(right))
    with pytest.raises(ModelError, match=r"MatMul.*\. Check the model") as caught:
        check_parity(path, program, {"x": np.ones((2, 6), np.float32)})
    assert caught.value.where == str(path)
    assert str(path) not in caught.value.message


@pytest.mark.parametrize("drawn", ["Dropout", "RandomNormalLike"])
def test_a_model_that_draws_random_numbers_is_refused(drawn: str) -> None:
    inputs = ["x", "ratio", "training"] if drawn == "Dropout" else ["x"]
    nodes = [
        onnx.helper.make_node(drawn, inputs, ["noise"]),
        onnx.helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    rows, result = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 8]) for name in "xy"
    )
    constants = [
        numpy_helper.from_array(np.array(0.5, np.float32), "ratio"),
        numpy_helper.from_array(np.array(True), "training"),
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", [rows], [result], constants),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    program = compile_model(ir.from_proto(model))
    with pytest.raises(ModelError, match=r"draws random numbers.*'y' each time, first in 'noise'") as told:
        check_parity(model.SerializeToString(), program, {"x": np.ones((4, 8), np.float32)})
    assert "evaluation mode" in told.value.remedy


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        q, k, v = (part.view(n, length, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        shares = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias).softmax(-1)
        x = self.norms[0](x + self.out((shares @ v).transpose(1, 2).reshape(n, length, width)))
        return self.norms[1](x + self.feed(x))


class Encoder(nn.Module):
    """A sentence encoder in the form of MiniLM: embeddings, masked attention, mean pooling, unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Embedding(32, 16)
        self.blocks = nn.ModuleList([Attention(16, 2), Attention(16, 2)])

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1])[None])
        bias = (1.0 - mask[:, None, None, :].float()) * -10000.0
        for block in self.blocks:
            x = block(x, bias)
        weight = mask[..., None].float()
        return functional.normalize((x * weight).sum(1) / weight.sum(1).clamp(min=1e-9), dim=1)


class Mobile(nn.Module):
    """An inverted residual net with the activations mobile nets use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.block = nn.Sequential(
            nn.Conv2d(8, 16, 1), nn.Hardswish(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Hardswish()
        )
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Hardsigmoid())
        self.project = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.block(x)
        x = x + self.project(y * self.gate(y))
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(functional.max_pool2d(x, 2).mean((2, 3)))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 8)
        self.lstm = nn.LSTM(8, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.lstm(self.words(ids))[0])[0]).log_softmax(-1)


IDS = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
NETS = {"encoder": (Encoder, (IDS, MASK)), "mobile": (Mobile, (IMAGE,)), "tagger": (Tagger, (IDS,))}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("opset", [13, 17, pytest.param(20, marks=pytest.mark.slow)])
def test_what_torch_scripts(net: str, opset: int) -> None:
    kind, arguments = NETS[net]
    torch.manual_seed(0)
    file = io.BytesIO()
    torch.onnx.export(kind().eval(), arguments, file, dynamo=False, opset_version=opset)
    agree(file.getvalue(), arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("opset", [18, 20, 23])
def test_what_torch_exports(net: str, opset: int) -> None:
    kind, arguments = NETS[net]
    torch.manual_seed(0)
    made = torch.onnx.export(kind().eval(), arguments, dynamo=True, opset_version=opset, verbose=False)
    agree(made.model_proto.SerializeToString(), arguments)


def agree(file: bytes, arguments: tuple[torch.Tensor, ...]) -> None:
    program: Program = compile_model(ir.serde.deserialize_model(onnx.load_model_from_string(file)))
    feeds = dict(zip(program.inputs, arguments, strict=True))
    parity = check_parity(file, program, {name: value.numpy() for name, value in feeds.items()})
    assert parity.worst < 1e-4
    weights = {n: w.clone().requires_grad_() for n, w in program.weights.items() if w.dim() > 1}
    loss = sum(output.square().sum() for output in program.evaluate(feeds, weights=weights).values())
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    products = torch.autograd.grad(
        sum(gradient.square().sum() for gradient in gradients), list(weights.values())
    )
    assert all(bool(tensor.isfinite().all()) for tensor in (*gradients, *products))


TIES = """<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 4] x) => (float[n, 4] y, int64[n] best, float[n, 4] picked)
    <float[4, 4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}> {
    y = MatMul(x, w)
    best = ArgMax<axis = -1, keepdims = 0>(y)
    picked = Gather(w, best)
}"""


def _ties(proto: onnx.ModelProto, nudge: float) -> bytes:
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    (tensor,) = other.graph.initializer
    stored = numpy_helper.to_array(tensor).copy()
    stored[1, 1] += nudge
    tensor.CopyFrom(numpy_helper.from_array(stored, tensor.name))
    return other.SerializeToString()


def test_selections_between_ties_may_fall_to_either_side() -> None:
    proto = onnx.parser.parse_model(TIES)
    program = compile_model(ir.from_proto(proto))
    tied = {"x": np.array([[1, 1, 0, 0], [0, 2, 0, 0]], np.float32)}
    parity = check_parity(_ties(proto, 1e-5), program, tied)
    assert parity.flipped == "best"
    assert parity.errors == {"y": pytest.approx(1e-5, rel=0.1), "best": 0.5, "picked": pytest.approx(1)}
    clear = {"x": np.array([[1, 3, 0, 0], [0, 2, 0, 0]], np.float32)}
    assert check_parity(_ties(proto, 1e-5), program, clear).flipped is None


def test_a_selection_that_is_made_otherwise_is_an_error() -> None:
    proto = onnx.parser.parse_model(TIES)
    smallest = onnx.ModelProto()
    smallest.CopyFrom(proto)
    smallest.graph.node[1].op_type = "ArgMin"
    program = compile_model(ir.from_proto(proto))
    with pytest.raises(InternalError, match="'best'"):
        check_parity(smallest.SerializeToString(), program, {"x": np.array([[1, 2, 0, 0]], np.float32)})
