"""Ways to damage an ONNX file: bytes, graph, tensors, versions, shapes, nesting, references to other files.

Every way is a function of the model and a random source; it changes the model in place or returns a file's bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from quant_core.ingest.subgraphs import body_protos

Mutation = Callable[[ModelProto, random.Random], bytes | None]

NUMBERS = (-1, 0, 1, 2, 3, 7, -9999, 9999, 1 << 20, 1 << 31, -(1 << 63), (1 << 63) - 1)
FLOATS = (0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan"))
TYPES = (*range(27), 99)


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all its subgraphs."""
    yield graph
    for node in graph.node:
        for body in body_protos(node):
            yield from graphs_of(body)


def _graph(model: ModelProto, rng: random.Random) -> GraphProto:
    return rng.choice(list(graphs_of(model.graph)))


def _node(model: ModelProto, rng: random.Random) -> NodeProto:
    nodes = [node for graph in graphs_of(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    return rng.choice(nodes) if nodes else model.graph.node.add(op_type="Relu")


def _name(model: ModelProto, rng: random.Random) -> str:
    graph = _graph(model, rng)
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    names += [value.name for value in graph.input] + [tensor.name for tensor in graph.initializer]
    return rng.choice([*names, "", "nowhere"])


def _tensor(model: ModelProto, rng: random.Random) -> TensorProto:
    tensors = [tensor for graph in graphs_of(model.graph) for tensor in graph.initializer]
    tensors += [
        attribute.t
        for graph in graphs_of(model.graph)
        for node in graph.node
        for attribute in node.attribute
        if attribute.HasField("t")
    ]
    if not tensors:
        model.graph.initializer.append(onnx.helper.make_tensor("spare", TensorProto.INT64, [2], [1, 2]))
        tensors = [model.graph.initializer[-1]]
    small = [tensor for tensor in tensors if tensor.data_type == TensorProto.INT64]
    return rng.choice(small if small and rng.random() < 0.4 else tensors)


def flip_bytes(model: ModelProto, rng: random.Random) -> bytes:
    """Overwrites a few bytes, mostly where the graph is described."""
    content = bytearray(model.SerializeToString())
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def cut_bytes(model: ModelProto, rng: random.Random) -> bytes:
    """Ends the file early."""
    content = model.SerializeToString()
    return content[: rng.randrange(len(content))]


def splice_bytes(model: ModelProto, rng: random.Random) -> bytes:
    """Removes, repeats or moves a piece of the file."""
    content = model.SerializeToString()
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    b = min(b, a + rng.choice([1, 8, 64, 4096]))
    return rng.choice([content[:a] + content[b:], content[:b] + content[a:], content[b:] + content[:b]])


def change_operator(model: ModelProto, rng: random.Random) -> None:
    """Gives a node another operator."""
    operators = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})
    _node(model, rng).op_type = rng.choice(operators)


def change_attribute(model: ModelProto, rng: random.Random) -> None:
    """Gives an attribute another value, or adds, removes or retypes one."""
    node = _node(model, rng)
    if not node.attribute or rng.random() < 0.1:
        name = rng.choice(["axis", "axes", "pads", "strides", "kernel_shape", "to", "perm", "shape", "group"])
        node.attribute.append(
            onnx.helper.make_attribute(name, [rng.choice(NUMBERS) for _ in range(rng.randint(1, 4))])
        )
        return
    attribute = rng.choice(node.attribute)
    way = rng.random()
    if way < 0.1:
        node.attribute.remove(attribute)
    elif way < 0.2:
        attribute.type = rng.choice(list(AttributeProto.AttributeType.values()))
    elif attribute.ints:
        if rng.random() < 0.2:
            attribute.ints.append(rng.choice(NUMBERS))
        else:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice([*NUMBERS, rng.randrange(2000)])
    elif attribute.floats:
        attribute.floats[rng.randrange(len(attribute.floats))] = rng.choice(FLOATS)
    elif attribute.HasField("f"):
        attribute.f = rng.choice(FLOATS)
    elif attribute.HasField("s"):
        attribute.s = rng.choice([b"", b"\xff\xfe", b"SAME_UPPER", b"x" * 10_000, attribute.s[::-1]])
    else:
        attribute.i = rng.choice(NUMBERS)


def change_dimensions(model: ModelProto, rng: random.Random) -> None:
    """Changes the shape of a stored tensor."""
    tensor = _tensor(model, rng)
    dims = list(tensor.dims)
    way = rng.randrange(4)
    if way == 0 and dims:
        dims[rng.randrange(len(dims))] = rng.choice(NUMBERS)
    elif way == 1:
        rng.shuffle(dims)
    elif way == 2:
        dims.append(rng.choice([1, 1, 2, 0]))
    elif dims:
        dims.pop()
    tensor.dims[:] = dims


def change_type(model: ModelProto, rng: random.Random) -> None:
    """Changes the element type of a stored tensor, an input or an output."""
    if rng.random() < 0.5:
        _tensor(model, rng).data_type = rng.choice(TYPES)
    else:
        value = rng.choice([*model.graph.input, *model.graph.output])
        value.type.tensor_type.elem_type = rng.choice(TYPES)


def change_values(model: ModelProto, rng: random.Random) -> None:
    """Changes stored numbers; integers are sizes, axes and positions, so they become huge and negative."""
    tensor = _tensor(model, rng)
    try:
        array = onnx.numpy_helper.to_array(tensor).copy()
    except Exception:
        return
    if array.size == 0 or array.dtype.kind not in "iuf":
        return
    number = rng.choice(NUMBERS if array.dtype.kind != "f" else FLOATS)
    flat = array.reshape(-1)
    for place in range(array.size) if rng.random() < 0.2 else [rng.randrange(array.size)]:
        flat[place] = number if array.dtype.kind == "f" else number % (1 << 8 * array.itemsize - 1)
    if array.dtype.kind == "i" and number < 0:
        flat[rng.randrange(array.size)] = max(number, -(1 << 8 * array.itemsize - 1))
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def cut_values(model: ModelProto, rng: random.Random) -> None:
    """Makes a stored tensor hold more or fewer bytes than its shape says."""
    tensor = _tensor(model, rng)
    tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)] + bytes(
        rng.choice([0, 0, 3, 8])
    )


def rewire(model: ModelProto, rng: random.Random) -> None:
    """Connects, disconnects, repeats or swaps inputs and outputs of nodes."""
    node, way = _node(model, rng), rng.randrange(6)
    if way == 0:
        node.input.append(_name(model, rng))
    elif way == 1 and node.output:
        node.output[rng.randrange(len(node.output))] = _name(model, rng)
    elif way == 2 and node.output:
        node.output.append("more" if rng.random() < 0.7 else _name(model, rng))
    elif way == 3 and node.input:
        del node.input[rng.randrange(len(node.input))]
    elif node.input:
        node.input[rng.randrange(len(node.input))] = _name(model, rng)


def change_nodes(model: ModelProto, rng: random.Random) -> None:
    """Removes, repeats or reorders nodes."""
    graph = _graph(model, rng)
    if not graph.node:
        return
    way, node = rng.randrange(3), rng.choice(graph.node)
    if way == 0:
        graph.node.remove(node)
    elif way == 1:
        graph.node.add().CopyFrom(node)
    else:
        nodes = list(graph.node)
        rng.shuffle(nodes)
        del graph.node[:]
        graph.node.extend(nodes)


def double(model: ModelProto, rng: random.Random) -> None:
    """Puts a chain that doubles a tensor at every step in front of a node."""
    graph = model.graph
    if not graph.node:
        return
    position = rng.randrange(len(graph.node))
    node = graph.node[position]
    if not node.input or not node.input[0]:
        return
    name, way = node.input[0], rng.choice(["Concat", "Tile", "Expand", "Einsum", "ConvTranspose"])
    graph.initializer.append(onnx.helper.make_tensor("growth", TensorProto.INT64, [4], [1, 1, 4096, 64]))
    for step in range(rng.choice([2, 8, 40])):
        made = f"grown{step}"
        if way == "Concat":
            extra = onnx.helper.make_node("Concat", [name, name], [made], axis=rng.choice([0, -1]))
        elif way == "Einsum":
            extra = onnx.helper.make_node("Einsum", [name, name], [made], equation="...a,...b->...ab")
        elif way == "ConvTranspose":
            extra = onnx.helper.make_node("ConvTranspose", [name, name], [made], strides=[99, 99])
        else:
            extra = onnx.helper.make_node(way, [name, "growth"], [made])
        graph.node.insert(position, extra)
        position, name = position + 1, made
    node.input[0] = name


def change_version(model: ModelProto, rng: random.Random) -> None:
    """Changes the version of an operator set or of the format."""
    if rng.random() < 0.2 or not model.opset_import:
        model.ir_version = rng.choice([0, 1, 3, 8, 13, 14, 1 << 40])
    elif rng.random() < 0.1:
        model.opset_import.add(
            domain=rng.choice(["", "ai.onnx", "ai.onnx.ml", "other"]), version=rng.randrange(30)
        )
    else:
        rng.choice(model.opset_import).version = rng.choice([*range(1, 29), 0, -1, 1 << 40])


def change_shape(model: ModelProto, rng: random.Random) -> None:
    """Changes declared shapes of inputs, outputs and interior tensors."""
    graph = _graph(model, rng)
    values = [*graph.input, *graph.output, *graph.value_info]
    if not values:
        return
    shape = rng.choice(values).type.tensor_type.shape
    way = rng.randrange(4)
    if way == 0:
        shape.dim.add().dim_value = rng.choice(NUMBERS)
    elif way == 1 and shape.dim:
        del shape.dim[-1]
    elif way == 2 and shape.dim:
        rng.choice(shape.dim).dim_param = rng.choice(["n", "", "batch", "n + 1", "floor(n/0)", "x" * 5000])
    elif shape.dim:
        rng.choice(shape.dim).dim_value = rng.choice([*NUMBERS, rng.randrange(300)])


def nest(model: ModelProto, rng: random.Random) -> None:
    """Puts the graph's nodes inside branches of branches, some of them endless loops."""
    most = model.ByteSize() + 300_000
    for _ in range(rng.choice([1, 2, 5, 20, 120])):
        inner = GraphProto(name="inner")
        inner.node.extend(model.graph.node)
        inner.output.extend(model.graph.output)
        outputs = [value.name for value in model.graph.output]
        del model.graph.node[:]
        condition = onnx.helper.make_tensor("yes", TensorProto.BOOL, [], [True])
        if not any(tensor.name == "yes" for tensor in model.graph.initializer):
            model.graph.initializer.append(condition)
        if rng.random() < 0.2:
            inner.input.append(onnx.helper.make_tensor_value_info("step", TensorProto.INT64, []))
            inner.input.append(onnx.helper.make_tensor_value_info("going", TensorProto.BOOL, []))
            inner.output.insert(0, onnx.helper.make_tensor_value_info("going", TensorProto.BOOL, []))
            model.graph.node.append(onnx.helper.make_node("Loop", ["", "yes"], outputs, body=inner))
        else:
            model.graph.node.append(
                onnx.helper.make_node("If", ["yes"], outputs, then_branch=inner, else_branch=inner)
            )
        if model.ByteSize() > most:
            return


def wrap(model: ModelProto, rng: random.Random) -> None:
    """Moves nodes into functions that may call themselves, each other, or call twice what is below them."""
    levels = rng.choice([1, 3, 30, 70])
    names = [f"f{level}" for level in range(levels)]
    for level, name in enumerate(names):
        function = model.functions.add(name=name, domain="local", input=["a"], output=["b"])
        function.opset_import.extend(model.opset_import)
        function.opset_import.add(domain="local", version=1)
        if level:
            below = (
                rng.choice([names[level - 1], names[level - 1], name])
                if rng.random() < 0.1
                else names[level - 1]
            )
            function.node.add(op_type=below, domain="local", input=["a"], output=["m"])
            function.node.add(op_type=below, domain="local", input=["m"], output=["b"])
        else:
            function.node.add(op_type="Relu", input=["a"], output=["b"])
    model.opset_import.add(domain="local", version=1)
    node = _node(model, rng)
    if node.input and node.input[0]:
        made = "wrapped"
        model.graph.node.insert(0, onnx.helper.make_node(names[-1], [node.input[0]], [made], domain="local"))
        node.input[0] = made


def refer_outside(model: ModelProto, rng: random.Random) -> None:
    """Points a stored tensor to another file, there or not, with odd places and lengths."""
    tensor = _tensor(model, rng)
    if tensor.data_location != TensorProto.EXTERNAL or rng.random() < 0.3:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        del tensor.external_data[:]
        location = rng.choice(
            ["weights.bin", "../weights.bin", "/etc/hostname", "missing", "", ".", "model.onnx", "\0"]
        )
        tensor.external_data.add(key="location", value=location)
    entry = rng.choice(tensor.external_data)
    if entry.key != "location":
        entry.value = rng.choice(["-1", "0", "4096", "1e9", "9" * 40, "", "abc"])
    if rng.random() < 0.5:
        key = rng.choice(["offset", "length", "checksum", "location"])
        tensor.external_data.add(key=key, value=rng.choice(["-1", "0", "8", "9" * 18, "weights.bin"]))


MUTATIONS: dict[str, Mutation] = {
    function.__name__.replace("_", " "): function
    for function in (
        *(
            flip_bytes,
            cut_bytes,
            splice_bytes,
            change_operator,
            change_attribute,
            change_dimensions,
            change_type,
        ),
        *(change_values, cut_values, rewire, change_nodes, double, change_version, change_shape, nest, wrap),
        refer_outside,
    )
}


def mutate(model: ModelProto, kind: str, rng: random.Random) -> bytes:
    """Damages a copy of a model.

    Args:
        model: The model.
        kind: Which way.
        rng: Source of randomness.

    Returns:
        The file.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        content = MUTATIONS[kind](copy, rng)
        if content is not None:
            return content
    return copy.SerializeToString()
