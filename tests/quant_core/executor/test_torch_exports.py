"""What torch exports: outputs, gradients and Hessian-vector products as torch itself has them, and all layers found."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from quant_core.executor import compile_model, run
from quant_core.ingest import find_layers, normalise

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.architectures import ARCHITECTURES, build

OPSETS = (17, 18, 20, 23)
# The newer exporter writes opset 18 and up and asks onnx's converter for less. That one cannot turn the axes of
# ReduceMean, an input since 18, back into an attribute, and the exporter then leaves the model at 18.
KEPT_AT_18 = {"resnet", "mobilenetv3", "swin", "convnext"}
QUICK = {("script", 17, name) for name in ARCHITECTURES} | {("dynamo", 23, "gpt"), ("dynamo", 18, "vit")}
CASES = [
    pytest.param(name, exporter, opset, marks=() if (exporter, opset, name) in QUICK else pytest.mark.slow)
    for name in ARCHITECTURES
    for exporter in ("script", "dynamo")
    for opset in OPSETS
]


def export(net, example, exporter, opset, folding=True):
    """The older exporter traces with TorchScript, the newer one with torch.export; batch axes are free."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            program = torch.onnx.export(
                net,
                (example,),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=({0: "batch"},),
                input_names=["x"],
                optimize=folding,
                verbose=False,
            )
            return program.model_proto
        stream = io.BytesIO()
        torch.onnx.export(
            net,
            (example,),
            stream,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
            do_constant_folding=folding,
        )
        return onnx.load_model_from_string(stream.getvalue())


def standard_opset(model):
    return next(entry.version for entry in model.opset_import if entry.domain == "")


def survivors(program, net):
    """Parameter -> initializers that hold it under its own name or turned, and whether they are turned."""
    weights, found = program.weights, {}
    for name, parameter in net.named_parameters():
        # A convolution that a batch norm was folded into keeps its name and not its values.
        places = [(name, False)] if name in weights and torch.equal(weights[name], parameter) else []
        if parameter.dim() == 2:
            places += [
                (key, True)
                for key, weight in weights.items()
                if weight.shape == parameter.shape[::-1] and torch.equal(weight, parameter.T)
            ]
        if places:
            found[name] = places
    return found


def derivatives(evaluate, weights, direction):
    """Gradient of a scalar loss and its Hessian times a direction."""
    output = evaluate(weights)
    mix = torch.cos(torch.arange(output.numel(), dtype=output.dtype)).view(output.shape)
    loss = (mix * output).mean() + output.square().mean() / 2
    keys = list(weights)
    first = torch.autograd.grad(loss, [weights[key] for key in keys], create_graph=True)
    along = sum((slope * direction[key]).sum() for key, slope in zip(keys, first, strict=True))
    second = torch.autograd.grad(along, [weights[key] for key in keys])
    return dict(zip(keys, first, strict=True)), dict(zip(keys, second, strict=True))


def hardsigmoid(x):
    """As torch's own, which has no second derivative."""
    return (x / 6 + 0.5).clamp(0, 1)


def assert_same_derivatives(model, net, example):
    net, example = net.double(), example.double() if example.is_floating_point() else example
    program = compile_model(ir.serde.deserialize_model(model), dtype=torch.float64)
    places = survivors(program, net)
    parameters = dict(net.named_parameters())
    theirs = {name: parameters[name].detach().clone().requires_grad_() for name in places}
    generator = torch.Generator().manual_seed(0)
    direction = {
        name: torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        for name, tensor in theirs.items()
    }

    def executor(weights):
        named = {
            key: weights[name].T if turned else weights[name]
            for name, stored in places.items()
            for key, turned in stored
        }
        (output,) = program.evaluate({"x": example}, weights=named).values()
        return output

    def torch_itself(weights):
        return torch.func.functional_call(net, weights, example)

    with sdpa_kernel(SDPBackend.MATH), mock.patch("torch.nn.functional.hardsigmoid", hardsigmoid):
        expected = derivatives(torch_itself, theirs, direction)
        ours = {name: tensor.detach().clone().requires_grad_() for name, tensor in theirs.items()}
        found = derivatives(executor, ours, direction)
    for right, mine in zip(expected, found, strict=True):
        scale = max(tensor.detach().abs().max().item() for tensor in right.values())
        for name in places:
            torch.testing.assert_close(mine[name], right[name], rtol=1e-5, atol=1e-7 * scale, msg=name)
    return places


def expected_layers(net, model):
    """Layers a quantizer should see, counted in the net."""
    kinds = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.Embedding)
    # The table of places is read at rows that are known, and so becomes a bias.
    count = sum(isinstance(module, kinds) for name, module in net.named_modules() if name != "places")
    # A layer of a recurrent network is one node with two weights.
    count += sum(2 * module.num_layers for module in net.modules() if isinstance(module, torch.nn.RNNBase))
    # Exporters that fold constants store the tied table of the gpt twice, once turned.
    turned = [array for array in model.graph.initializer if list(array.dims) == [24, 64]]
    return count + (len(turned) if "tokens.weight" in dict(net.named_parameters()) else 0)


@pytest.mark.parametrize(("name", "exporter", "opset"), CASES)
def test_exported_net_is_the_net(name, exporter, opset):
    net, example = build(name)
    model = export(net, example, exporter, opset)
    kept = exporter == "dynamo" and opset == 17 and name in KEPT_AT_18
    assert standard_opset(model) == (18 if kept else opset)
    feeds = {"x": example.numpy()}
    (found,) = run(model, feeds).values()
    (theirs,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    with torch.no_grad():
        own = net(example).numpy()
    scale = np.abs(own).max()
    np.testing.assert_allclose(found, theirs, rtol=1e-4, atol=1e-4 * scale)
    np.testing.assert_allclose(found, own, rtol=1e-4, atol=1e-4 * scale)
    assert len(find_layers(normalise(ir.serde.deserialize_model(model)))) == expected_layers(net, model)
    program = compile_model(ir.serde.deserialize_model(model))
    weights = {key: weight.detach().requires_grad_() for key, weight in program.weights.items()}
    (output,) = program.evaluate({"x": example}, weights=weights).values()
    leaves = list(weights.values())
    first = torch.autograd.grad(
        output.square().mean(), leaves, create_graph=True, allow_unused=True, materialize_grads=True
    )
    along = sum(slope.square().sum() for slope in first)
    second = torch.autograd.grad(along, leaves, allow_unused=True, materialize_grads=True)
    assert all(bool(tensor.isfinite().all()) for tensor in (*first, *second))
    assert_same_derivatives(model, net, example)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("exporter", ["script", "dynamo"])
def test_every_parameter_keeps_its_derivatives_where_nothing_is_folded(name, exporter):
    net, example = build(name)
    places = assert_same_derivatives(export(net, example, exporter, 20, folding=False), net, example)
    assert set(places) == set(dict(net.named_parameters()))
