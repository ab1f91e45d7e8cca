"""Small networks of every operator, and files made of them."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from onnx import TensorProto, numpy_helper

from quant_core.executor import compile_model
from quant_core.export import export_model, place
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import Simulation, activation_grid, quantize_weight
from quant_core.quantizers.grids.activation import float8_grid, symmetric_grid
from quant_core.spec import FLOAT_BITS, WeightOptions
from tests.networks import HEADER, drawn, network


def parse(text, **initializers):
    values = drawn(np.random.default_rng(0), initializers)
    return network(text, {name: array / np.sqrt(np.prod(array.shape[1:])) for name, array in values.items()})


NETS = {
    "conv": (
        HEADER
        + """g (float[n,8,10,10] x) => (float[n,4] y) {
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)
            r = Relu(a)
            d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=16>(r, w2, b2)
            c = Clip(d, low, high)
            s = Add(c, r)
            m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s)
            p = GlobalAveragePool(m)
            f = Flatten(p)
            y = Gemm<transB=1>(f, w3, b3)
        }""",
        {"w1": (16, 8, 3, 3), "b1": (16,), "w2": (16, 1, 3, 3), "b2": (16,), "w3": (4, 16), "b3": (4,)},
        {"QLinearConv", "QGemm"},
        {"low": 0.0, "high": 6.0},
    ),
    "conv_output": (
        HEADER
        + """g (float[n,4,9] x) => (float[n,6,7] y) {
            y = Conv<kernel_shape=[3]>(x, w1)
        }""",
        {"w1": (6, 4, 3)},
        {"QLinearConv"},
        {},
    ),
    "branches": (
        HEADER
        + """g (float[n,8,6,6] x) => (float[n,4] y) {
            a = Conv<kernel_shape=[1,1]>(x, w1, b1)
            s = Sigmoid(a)
            t = Mul(a, s)
            u = Conv<kernel_shape=[1,1]>(t, w2)
            c = Concat<axis=1>(t, u)
            h = HardSwish(c)
            p = AveragePool<kernel_shape=[6,6]>(h)
            q = Conv<kernel_shape=[1,1]>(p, w3, b3)
            y = Reshape(q, shape)
        }""",
        {"w1": (8, 8, 1, 1), "b1": (8,), "w2": (8, 8, 1, 1), "w3": (4, 16, 1, 1), "b3": (4,)},
        {"QLinearConv"},
        {"shape": [0, 4]},
    ),
    "transformer": (
        HEADER
        + """g (int64[n,t] ids, float[n,t,8] x) => (float[n,t,6] y) {
            e = Gather<axis=0>(table, ids)
            s = Add(e, x)
            q = MatMul(s, w1)
            k = MatMul(s, w2)
            kt = Transpose<perm=[0,2,1]>(k)
            a = MatMul(q, kt)
            p = Softmax<axis=-1>(a)
            v = MatMul(p, s)
            o = MatMul(v, w3)
            y = Add(o, b3)
        }""",
        {"table": (20, 8), "w1": (8, 8), "w2": (8, 8), "w3": (8, 6), "b3": (6,)},
        {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "Gather"},
        {},
    ),
    "perceptron": (
        HEADER
        + """g (float[n,12] x) => (float[n,3] y) {
            a = Gemm<transB=1>(x, w1, b1)
            r = Relu(a)
            y = Gemm(r, w2, b2)
        }""",
        {"w1": (16, 12), "b1": (16,), "w2": (16, 3), "b2": (3,)},
        {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"},
        {},
    ),
    "two_readers": (
        HEADER
        + """g (int64[n,t] ids, int64[n,t] more) => (float[n,4,t] y) {
            a = Gather<axis=0>(table, ids)
            b = Gather<axis=0>(table, more)
            c = Transpose<perm=[0,2,1]>(a)
            d = Transpose<perm=[0,2,1]>(b)
            e = Conv<kernel_shape=[3], pads=[1,1]>(c, w1, b1)
            f = Conv<kernel_shape=[3], pads=[1,1]>(d, w2)
            y = Add(e, f)
        }""",
        {"table": (20, 8), "w1": (4, 8, 3), "b1": (4,), "w2": (4, 8, 3)},
        {"QLinearConv", "Gather"},
        {},
    ),
    "output_inside": (
        HEADER
        + """g (int64[n,t] ids) => (float[n,4,t] y, float[n,t,8] e) {
            e = Gather<axis=0>(table, ids)
            s = Transpose<perm=[0,2,1]>(e)
            y = Conv<kernel_shape=[3], pads=[1,1]>(s, w1)
        }""",
        {"table": (20, 8), "w1": (4, 8, 3)},
        {"QLinearConv", "Gather"},
        {},
    ),
    "upsampler": (
        HEADER
        + """g (float[n,4,5,5] x) => (float[n,3,10,10] y) {
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
            r = Relu(a)
            y = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(r, w2, b2)
        }""",
        {"w1": (6, 4, 3, 3), "b1": (6,), "w2": (6, 3, 2, 2), "b2": (3,)},
        {"QLinearConv", "ConvTranspose"},
        {},
    ),
}

EVERY_OPERATOR = (
    HEADER
    + """g (float[n,8,6,6] x, int64[n] ids) => (float[n,10] y) {
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, conv, conv_bias)
        b = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=2>(a, grouped)
        c = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=32>(b, depthwise)
        d = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(c, transposed)
        p = GlobalAveragePool(d)
        f = Flatten(p)
        g1 = Gemm<transB=1>(f, gemm, gemm_bias)
        g2 = Gemm(g1, plain_gemm)
        e = Gather<axis=0>(table, ids)
        s = Add(g2, e)
        m = MatMul(s, matmul)
        y = Tanh(m)
    }""",
    {
        "conv": (32, 8, 3, 3),
        "conv_bias": (32,),
        "grouped": (32, 16, 3, 3),
        "depthwise": (32, 1, 3, 3),
        "transposed": (32, 20, 2, 2),
        "gemm": (48, 20),
        "gemm_bias": (48,),
        "plain_gemm": (48, 40),
        "table": (20, 40),
        "matmul": (40, 10),
    },
    set(),
    {},
)


def uncorrected(options):
    """The options of weights that are rounded here without a look at samples, whose biases stay what they are."""
    return options.model_copy(update={"bias_correction": False})


class Net:
    def __init__(self, net, **stored):
        text, shapes, self.kernels, constants = NETS[net] if isinstance(net, str) else net
        proto = parse(text, **shapes)
        for constant, value in constants.items():
            dtype = np.int64 if isinstance(value, list) else np.float32
            proto.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=dtype), constant))
        for tensor in proto.graph.initializer:
            if tensor.name in stored:
                tensor.CopyFrom(numpy_helper.from_array(stored[tensor.name], tensor.name))
        onnx.checker.check_model(proto)
        self.model = normalise(ir.from_proto(proto))
        self.layers = find_layers(self.model)
        self.program = compile_model(self.model)
        rng = np.random.default_rng(1)
        self.feeds = {}
        for value in proto.graph.input:
            shape = [
                dim.dim_value or {"n": 5, "t": 7}[dim.dim_param] for dim in value.type.tensor_type.shape.dim
            ]
            integer = value.type.tensor_type.elem_type == TensorProto.INT64
            self.feeds[value.name] = (
                rng.integers(0, 20, shape) if integer else rng.standard_normal(shape).astype(np.float32)
            )

    def export(
        self,
        bits,
        activation_bits,
        path,
        target=ORT_CPU,
        options=WeightOptions(),  # noqa: B008 # frozen
        rounded=lambda _, *given: quantize_weight(*given),
    ):
        """Round, write and simulate; `rounded` makes codes of a layer, its weight, bits, axis and grid."""
        placement = place(self.model, self.layers, bits, activation_bits, target, options)
        tensors = {name: torch.from_numpy(array) for name, array in self.feeds.items()}
        inner = [name for name in placement.points if name not in tensors]
        with torch.no_grad():
            values = tensors | self.program.evaluate(tensors, outputs=inner)
        lay = float8_grid if target.float8 else symmetric_grid if target.symmetric else activation_grid
        ends = {n: (float(values[n].min()), float(values[n].max())) for n in placement.points}
        grids = {
            n: activation_grid(*ends[n], bits=16) if n in placement.wide else lay(*ends[n]) for n in ends
        }
        weights = {
            layer.name: rounded(
                layer,
                self.model.graph.initializers[layer.weight].const_value.numpy(),
                bits[layer.name],
                layer.step_axis(options.grid(bits[layer.name])),
                options.grid(bits[layer.name]),
            )
            for layer in self.layers
            if bits[layer.name] != FLOAT_BITS
        }
        file = export_model(self.model, self.layers, weights, placement, grids, target)
        onnx.save(file, path)
        onnx.checker.check_model(path, full_check=True)
        dynamic = [name for name, form in placement.forms.items() if form == "dynamic"]
        blocks = {name: weights[name].block_size for name, form in placement.forms.items() if form == "block"}
        self.simulation = Simulation(self.model, self.layers, weights, grids, dynamic, blocks=blocks)
        self.placement, self.grids, self.weights = placement, grids, weights
        return placement, file, self.simulation.run(self.feeds)["y"]

    def run(self, path):
        return onnxruntime.InferenceSession(path).run(["y"], self.feeds)[0]


def optimized(path: Path) -> onnx.GraphProto:
    """The graph that onnxruntime makes of a file, weights and all; it is written beside the file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath).graph


def optimized_operators(path: Path) -> list[str]:
    """Operators of the graph that onnxruntime makes of a file."""
    return [node.op_type for node in optimized(path).node]
