"""Activations whose bits are chosen layer by layer: what each choice rounds, and what that costs in loss."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import onnx_ir as ir
import torch

from quant_core.calibration import Samples, activation_ranges, choose_range
from quant_core.calibration.activation_range import ActivationRange
from quant_core.executor import Program, compile_model
from quant_core.export import Form, Placement, layer_form, place
from quant_core.ingest import Layer
from quant_core.preparation import Prepared
from quant_core.preparation.open_widths import layers_at
from quant_core.quantizers import activation_grid
from quant_core.quantizers.grids.activation import dynamic_fake_quantize, fake_quantize
from quant_core.sensitivity import Batch, Objective
from quant_core.sensitivity.float_run import float_runs
from quant_core.spec import FLOAT_BITS, BitPlan, QuantizeSpec
from quant_core.spec.bits import WIDE_BITS
from quant_core.spec.progress import Tell
from quant_core.spec.width import KERNEL_BITS, activation_of, weight_of

Rounding = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class OpenActivations:
    """Simulates what files round, and what they would round at 4 bits.

    Attributes:
        job: The prepared job.
        spec: The request.
        program: Its graph, with a tensor of its own before every layer that may round its input as it runs.
        taps: Layer -> those tensors.
        ranges: Tensor -> what calibration saw in it.
    """

    job: Prepared
    spec: QuantizeSpec
    program: Program
    taps: Mapping[str, tuple[str, ...]]
    ranges: Mapping[str, ActivationRange]
    _known: dict[tuple[tuple[int | None, Form], ...], Placement] = field(default_factory=dict)

    def rounding(self, widths: Mapping[str, int]) -> dict[str, Rounding]:
        """Tell what a plan rounds.

        Args:
            widths: Layer name -> width.

        Returns:
            Tensor name -> how it is rounded.
        """
        placement = self._place(widths)
        narrow = {
            layer.name: own
            for layer in self.job.layers
            if (own := activation_of(widths[layer.name])) is not None and own < KERNEL_BITS
        }
        found: dict[str, Rounding] = {}
        for tensor in placement.points:
            bits = WIDE_BITS if tensor in placement.wide else KERNEL_BITS
            found[tensor] = self._static(tensor, bits)
        for layer in self.job.layers:
            form, own = placement.forms[layer.name], narrow.get(layer.name, KERNEL_BITS)
            if form == "dynamic":
                found |= dict.fromkeys(self.taps[layer.name], partial(dynamic_fake_quantize, bits=own))
            elif form == "static" and layer.name in narrow:
                read = [placement.aliases.get(tensor, tensor) for tensor in layer.inputs]
                found |= {tensor: self._static(tensor, own) for tensor in read if tensor in found}
        return found

    def scores(
        self, objective: Objective, batches: Sequence[Batch], tell: Tell
    ) -> dict[str, dict[int, float]]:
        """Measure what the activation bits of each layer cost in loss, the weights in float.

        Every tensor that some layer rounds is rounded alone, and its loss increase shared equally among the layers
        whose kernels ask for it: the one that writes it and those that read it. So the shares of a network all of whose
        layers have the same bits add up to the loss of every tensor, once. At 4 bits a layer pays what its input loses
        more than at 8; at 16 bits for its input alone.

        Args:
            objective: The loss.
            batches: The samples.
            tell: Called with the fraction done and a message.

        Returns:
            Layer name -> bits -> expected loss increase; float costs nothing.
        """
        open_layers = [layer for layer in self.job.layers if layer.activation_bits is None]
        asked = {layer.name: self._asked(layer) for layer in open_layers}
        owners: dict[tuple[str, int], list[str]] = {}
        for name, by_bits in asked.items():
            for bits, tensors in by_bits.items():
                for tensor in tensors:
                    owners.setdefault((tensor, bits), []).append(name)
        wanted = sorted(owners, key=str)
        increase = self._increases(objective, batches, wanted, tell)
        found: dict[str, dict[int, float]] = {}
        for name, by_bits in asked.items():
            shares = {
                bits: sum(increase[tensor, bits] / len(owners[tensor, bits]) for tensor in tensors)
                for bits, tensors in by_bits.items()
            }
            for bits in [bits for bits in shares if bits < KERNEL_BITS]:
                whole = shares.get(KERNEL_BITS, 0.0)
                more = sum(
                    (increase[tensor, bits] - increase.get((tensor, KERNEL_BITS), 0.0))
                    / len(owners[tensor, bits])
                    for tensor in by_bits[bits]
                )
                shares[bits] = whole + more
            found[name] = shares | {FLOAT_BITS: 0.0}
        return found

    def _asked(self, layer: Layer) -> Mapping[int, Collection[str]]:
        """Bits -> tensors that the layer alone has rounded to them."""
        others = {other.name: FLOAT_BITS for other in self.job.layers}
        weight = next((b for b in self.job.candidates[layer.name].bits if b != FLOAT_BITS), FLOAT_BITS)
        placement = self._place(
            {**others, layer.name: weight}
        )  # where nobody asks, slow kernels are left out
        form = placement.forms[layer.name]
        if form not in {"static", "dynamic"}:
            return {}
        read = self.taps[layer.name] if form == "dynamic" else layer.inputs
        both = read if form == "dynamic" else placement.points
        chosen = self.spec.open_activations
        return (
            {KERNEL_BITS: both}
            | {bits: tuple(dict.fromkeys(read)) for bits in chosen if bits < KERNEL_BITS}
            | ({WIDE_BITS: layer.inputs} if WIDE_BITS in chosen else {})
        )

    def _increases(
        self, objective: Objective, batches: Sequence[Batch], wanted: Sequence[tuple[str, int]], tell: Tell
    ) -> dict[tuple[str, int], float]:
        sums, count = dict.fromkeys(wanted, 0.0), 0
        behind = {tensor: self.program.downstream(tensor) for tensor, _ in wanted}
        for number, run in enumerate(float_runs(self.program, self.job.layers, objective, batches)):
            count += run.batch.size
            for tensor, bits in wanted:
                feeds = {name: value for name, value in run.values.items() if name not in behind[tensor]}
                feeds[tensor] = self._rounding(tensor, bits)(run.values[tensor])
                with torch.no_grad():
                    values = self.program.evaluate(feeds, outputs=objective.tensors)
                    change = run.per_sample(objective.rows(values, run.batch.size)) - run.before
                sums[tensor, bits] += float(change.double().sum())
            tell((number + 1) / len(batches), f"activations of {count} samples rounded")
        return {key: total / count for key, total in sums.items()}

    def _rounding(self, tensor: str, bits: int) -> Rounding:
        taps = {name for names in self.taps.values() for name in names}
        return partial(dynamic_fake_quantize, bits=bits) if tensor in taps else self._static(tensor, bits)

    def _static(self, tensor: str, bits: int) -> Rounding:
        low, high = choose_range(self.ranges[tensor], self.spec.activation_range or "mse", bits)
        return partial(fake_quantize, grid=activation_grid(low, high, bits))

    def _place(self, widths: Mapping[str, int]) -> Placement:
        job, default = self.job, self.spec.default_activation_bits
        layers = layers_at(job.layers, widths)
        bits = {name: weight_of(width) for name, width in widths.items()}
        key = tuple(
            (
                layer.activation_bits,
                layer_form(layer, job.model, bits[layer.name], default, job.target, self.spec),
            )
            for layer in layers
        )
        if key not in self._known:
            self._known[key] = place(job.model, layers, bits, default, job.target, self.spec)
        return self._known[key]


def open_activations(job: Prepared, samples: Samples, spec: QuantizeSpec, tell: Tell) -> OpenActivations:
    """Get ready to simulate any choice of activation bits.

    Args:
        job: The prepared job.
        samples: Calibration samples.
        spec: The request.
        tell: Called with the fraction done and a message.

    Returns:
        The simulation.
    """
    weights = {
        name: next((b for b in choice.bits if b != FLOAT_BITS), FLOAT_BITS)
        for name, choice in job.candidates.items()
    }
    placement = place(job.model, job.layers, weights, KERNEL_BITS, job.target, spec)
    dynamic = [layer for layer in job.layers if placement.forms[layer.name] == "dynamic"]
    graph, taps = tap_inputs(job.graph, dynamic)
    program = compile_model(graph, device=job.program.device) if dynamic else job.program
    read = [tensor for layer in job.layers if layer.op != "Gather" for tensor in layer.inputs]
    alone = [
        tensor
        for layer in job.layers
        for tensor in place(
            job.model,
            job.layers,
            {name: bits if name == layer.name else FLOAT_BITS for name, bits in weights.items()},
            KERNEL_BITS,
            job.target,
            spec,
        ).points
    ]
    ranges = activation_ranges(
        job.program,
        samples,
        list(dict.fromkeys([*placement.points, *alone, *read])),
        batch_size=job.batch_size,
        on_batch=lambda done, total: tell(done / total, f"activation ranges: {done} of {total} samples"),
    )
    return OpenActivations(job, spec, program, taps, ranges)


def tap_inputs(model: ir.Model, layers: Sequence[Layer]) -> tuple[ir.Model, Mapping[str, tuple[str, ...]]]:
    """Give what each layer reads a name of its own, so that it can be rounded for that layer alone.

    Args:
        model: A model; left as it is.
        layers: Some of its layers.

    Returns:
        A copy with an Identity before each of them, and layer name -> names of what it now reads.
    """
    copy = model.clone()
    owner = {use.node: layer.name for layer in layers for use in layer.uses}
    taps: dict[str, list[str]] = {layer.name: [] for layer in layers}
    for node in list(copy.graph):
        layer = owner.get(str(node.name))
        if layer is None:
            continue
        source = node.inputs[0]
        assert source is not None
        name = f"{source.name}@{layer}"
        known = next((v for v in copy.graph.all_nodes() if v.outputs and v.outputs[0].name == name), None)
        if known is None:
            value = ir.Value(name=name, type=source.type, shape=source.shape)
            known = ir.node("Identity", [source], outputs=[value])
            copy.graph.insert_before(node, known)
            taps[layer].append(name)
        node.replace_input_with(0, known.outputs[0])
    return copy, {name: tuple(found) for name, found in taps.items()}


def note_narrow(plan: BitPlan, loss: float | None) -> tuple[str, ...]:
    """Say what of a plan no file can hold.

    Args:
        plan: The plan.
        loss: What was measured of it in simulation, if anything.

    Returns:
        A note, where layers have activations of fewer bits than kernels take.
    """
    narrow = [layer.name for layer in plan.layers if (layer.activation_bits or KERNEL_BITS) < KERNEL_BITS]
    if not narrow:
        return ()
    measured = "" if loss is None else f" Simulated, the plan's loss increase is {loss:.4g}."
    told = (
        f"{len(narrow)} layers are planned with activations of fewer than {KERNEL_BITS} bits, which exist in "
        f"simulation and in bit operations: the file rounds them to {KERNEL_BITS}, and is measured so.{measured}"
    )
    return (told,)
