"""Damaged models end with an error of our own, never with a crash or a foreign exception."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from quant_core.errors import BitwrightError, ModelError, UnsupportedOperatorError
from quant_core.executor import compile_model, run


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes_of(attribute.g)


def damage(model: onnx.ModelProto, others: list[str], rng: random.Random) -> None:
    """Changes one operator, attribute or connection."""
    node = rng.choice(list(nodes_of(model.graph)))
    names = [value.name for value in model.graph.input]
    way = rng.randrange(6)
    if way == 0:
        node.op_type = rng.choice(others)
    elif way == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(["", "nowhere", *names])
    elif way == 2 and node.input:
        del node.input[rng.randrange(len(node.input))]
    elif way == 3:
        node.input.append(rng.choice(names))
    elif node.attribute:
        attribute = rng.choice(node.attribute)
        if way == 4:
            node.attribute.remove(attribute)
        elif attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice([-1, 0, 3, 9999])
        else:
            attribute.i = rng.choice([-1, 0, 7, 9999])


def survive(backend_cases, count: int, seed: int) -> None:
    cases = [case for case in backend_cases if case.outside is None and case.kind != "real"]
    others = sorted({case.model.graph.node[0].op_type for case in cases})
    rng = random.Random(seed)
    logging.disable(logging.CRITICAL)  # the reader warns about every broken connection
    try:
        for _ in range(count):
            case = rng.choice(cases)
            model = onnx.ModelProto()
            model.CopyFrom(case.model)
            damage(model, others, rng)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    run(model, case.feeds())
            except BitwrightError:
                continue
    finally:
        logging.disable(logging.NOTSET)


def test_damaged_models(backend_cases) -> None:
    survive(backend_cases, 400, seed=0)


@pytest.mark.slow
def test_many_damaged_models(backend_cases) -> None:
    survive(backend_cases, 10_000, seed=1)


@pytest.mark.parametrize("place", ["initializer", "constant", "subgraph"])
def test_a_graph_without_a_folder_reads_no_files(place, tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"do not read me!!")
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.UINT8, dims=[16])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(secret))
    x = helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [16])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, [16])
    add = helper.make_node("Add", ["x", "w"], ["y"])
    nodes, stored = [add], [tensor]
    if place == "constant":
        nodes, stored = [onnx.NodeProto(op_type="Constant", output=["w"]), add], []
        nodes[0].attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    elif place == "subgraph":
        body = helper.make_graph([add], "body", [], [y], [tensor])
        yes = helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True])
        nodes, stored = [helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)], [yes]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], stored), opset_imports=[helper.make_opsetid("", 21)]
    )
    with pytest.raises(ModelError, match="refers to a file"):
        run(model, {"x": np.zeros(16, np.uint8)})


@pytest.mark.parametrize("domain", ["ai.onnx.contrib", "pkg.python", "org.pytorch.aten", "com.microsoft"])
def test_operators_that_name_code_are_refused(domain) -> None:
    node = helper.make_node("PyOp", ["x"], ["y"], domain=domain, module="os", func="system", code="print(1)")
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid(domain, 1)]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]), opset_imports=imports)
    with pytest.raises(UnsupportedOperatorError, match="PyOp"):
        run(model, {"x": np.zeros(1, np.float32)})


def test_a_lack_of_memory_is_no_damage(monkeypatch) -> None:
    def no_room(_) -> None:
        raise MemoryError

    weight = helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph([helper.make_node("Add", ["w", "w"], ["y"])], "g", [], [
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    ], [weight])  # fmt: skip
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))
    monkeypatch.setattr(type(model.graph.initializers["w"].const_value), "numpy", no_room)
    with pytest.raises(MemoryError):
        compile_model(model)


def test_more_axes_than_arrays_have_are_refused():
    """Torch makes such a tensor."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        many (float[n] x, int64[m] sizes) => (float[o] y) { y = Reshape(x, sizes) }"""
    )
    feeds = {"x": np.ones(1, np.float32), "sizes": np.ones(64, np.int64)}
    assert run(model, feeds)["y"].ndim == 64
    with pytest.raises(ModelError, match="65 axes"):
        run(model, feeds | {"sizes": np.ones(65, np.int64)})
