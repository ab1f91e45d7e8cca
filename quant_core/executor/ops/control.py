"""If, Loop and Scan. Branches and trip counts are read on the host; gradients flow through whatever was run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from quant_core.executor.dtypes import Kind
from quant_core.executor.node import Body, Node
from quant_core.executor.registry import Kernel, operator

MAX_ITERATIONS = 1_000_000
"""Iterations after which a loop without an end is refused."""


def _results(values: tuple[Any, ...]) -> Any:
    return values if len(values) != 1 else values[0]


@operator("If")
def _if(node: Node) -> Kernel:
    then, other, condition = node.bodies["then_branch"], node.bodies["else_branch"], node.host(0)

    def branch(chosen: Tensor, *captured: Any) -> Any:
        body = then if condition.scalar(chosen) else other
        return _results(body((), (chosen, *captured)))

    return branch


def _stack(node: Node, body: Body, index: int, collected: Sequence[Tensor], axis: int = 0) -> Tensor:
    if collected:
        return torch.stack(list(collected), axis)
    shape = [size if isinstance(size, int) else 0 for size in body.shapes[index] or ()]
    shape.insert(axis, 0)
    kind = body.kinds[index] or Kind.FLOAT
    return torch.zeros(shape, dtype=node.carrier(kind), device=node.device)


@operator("Loop")
def _loop(node: Node) -> Kernel:
    body, trips, start = node.bodies["body"], node.host(0), node.host(1)
    carried = len(node.present) - 2

    def loop(*arguments: Any) -> Any:
        limit, condition = arguments[0], arguments[1]
        count = MAX_ITERATIONS + 1 if limit is None else trips.scalar(limit)
        going = True if condition is None else bool(start.scalar(condition))
        state = list(arguments[2 : 2 + carried])
        collected: list[list[Tensor]] = [[] for _ in range(len(body.kinds) - 1 - carried)]
        done, flag = 0, condition
        while going and done < count:
            if done >= MAX_ITERATIONS:
                raise node.invalid(f"did not end after {MAX_ITERATIONS} iterations.")
            flag = torch.tensor(True, device=node.device) if flag is None else flag
            results = body((torch.tensor(done, device=node.device), flag, *state), arguments)
            flag, state = results[0], list(results[1 : 1 + carried])
            for place, value in zip(collected, results[1 + carried :], strict=True):
                place.append(value)
            going = bool(flag)
            done += 1
        stacked = [_stack(node, body, 1 + carried + index, place) for index, place in enumerate(collected)]
        return _results((*state, *stacked))

    return loop


@operator("Scan", since=9)
def _scan(node: Node) -> Kernel:
    body, count = node.bodies["body"], node.int("num_scan_inputs")
    if not 0 < count <= len(node.present):
        raise node.invalid(f"scans {count} of {len(node.present)} inputs.")
    states = len(node.present) - count
    outputs = len(body.kinds) - states
    in_axes, out_axes = (
        node.ints("scan_input_axes", (0,) * count),
        node.ints("scan_output_axes", (0,) * outputs),
    )
    in_flips = node.ints("scan_input_directions", (0,) * count)
    out_flips = node.ints("scan_output_directions", (0,) * outputs)

    def scan(*arguments: Any) -> Any:
        state = list(arguments[:states])
        series = [
            (value.flip(axis) if flip else value).unbind(axis)
            for value, axis, flip in zip(arguments[states : states + count], in_axes, in_flips, strict=True)
        ]
        collected: list[list[Tensor]] = [[] for _ in range(outputs)]
        for items in zip(*series, strict=True):
            results = body((*state, *items), arguments)
            state = list(results[:states])
            for place, value in zip(collected, results[states:], strict=True):
                place.append(value)
        stacked = []
        for index, (place, axis, flip) in enumerate(zip(collected, out_axes, out_flips, strict=True)):
            rank = (place[0].dim() if place else len(body.shapes[states + index] or ())) + 1
            at = axis % rank
            stacked.append(_stack(node, body, states + index, place[::-1] if flip else place, at))
        return _results((*state, *stacked))

    return scan


@operator("Scan", until=8, note="opset 8 scans each sample of a batch on its own")
def _batched_scan(node: Node) -> Kernel:
    body, count = node.bodies["body"], node.int("num_scan_inputs")
    states = len(node.present) - 1 - count
    outputs = len(body.kinds) - states
    flips = node.ints("directions", (0,) * count)

    def scan(*arguments: Any) -> Any:
        lengths, inputs = arguments[0], arguments[1 : 1 + states + count]
        batch = inputs[0].shape[0]
        finals: list[list[Tensor]] = [[] for _ in range(states)]
        collected: list[list[Tensor]] = [[] for _ in range(outputs)]
        for sample in range(batch):
            state = [value[sample] for value in inputs[:states]]
            series = [value[sample] for value in inputs[states:]]
            full = series[0].shape[0]
            length = full if lengths is None else int(lengths[sample])
            series = [
                value[:length].flip(0) if flip else value[:length]
                for value, flip in zip(series, flips, strict=True)
            ]
            steps: list[list[Tensor]] = [[] for _ in range(outputs)]
            for items in zip(*(value.unbind(0) for value in series), strict=True):
                results = body((*state, *items), arguments)
                state = list(results[:states])
                for place, value in zip(steps, results[states:], strict=True):
                    place.append(value)
            for place, value in zip(finals, state, strict=True):
                place.append(value)
            for index, (place, made) in enumerate(zip(collected, steps, strict=True)):
                stacked = _stack(node, body, states + index, made)
                place.append(torch.cat([stacked, stacked.new_zeros(full - length, *stacked.shape[1:])]))
        return _results(tuple(torch.stack(place) for place in (*finals, *collected)))

    return scan
