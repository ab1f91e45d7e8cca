"""Damaged models end with an error of our own, never with a crash or a foreign exception."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator

import onnx
import onnx_ir as ir
import pytest

from quant_core.errors import BitwrightError
from quant_core.executor import run


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
                ir.serde.deserialize_model(model)
            except (ValueError, TypeError, RuntimeError, ir.serde.SerdeError):
                continue
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
