"""A plan for people."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from quant_core.spec import BitPlan, format_bits

_BEFORE_MEASURING = (
    "These are scores of layers, one by one. A quantization measures the plan, and may give another one within the "
    "same limits: refined around it, or with two widths a layer."
)


def print_plan(plan: BitPlan, console: Console) -> None:
    """Print a plan: what it costs, and each layer's bits with the reason.

    Args:
        plan: The plan.
        console: Where to print.
    """
    table = Table()
    table.add_column("layer", overflow="fold")
    opened = any(layer.activation_bits is not None for layer in plan.layers)
    table.add_column("bits / of activations" if opened else "bits", justify="right")
    table.add_column("why", overflow="fold")
    for layer in plan.layers:
        own = [format_bits(layer.bits) + (f" + {100 * layer.sparse:g} %" if layer.sparse else "")]
        own += [] if layer.activation_bits is None else [format_bits(layer.activation_bits)]
        table.add_row(escape(layer.name), " / ".join(own), escape(layer.reason))
    console.print(table)
    limit = "" if plan.budget_bytes is None else f" of {plan.budget_bytes:,} allowed"
    proof = "proven optimal" if plan.optimal else f"found by {plan.solver}"
    console.print(
        f"About {plan.predicted_bytes:,} bytes{limit}, predicted loss increase {plan.predicted_loss:.4g} ({proof})",
        highlight=False,
        markup=False,
    )
    for name, cost in plan.costs.items():
        limit = f", at most {plan.limits[name]:.6g}" if name in plan.limits else ""
        console.print(f"{name.replace('_', ' ')}: {cost:.6g}{limit}", highlight=False, markup=False)
    console.print(_BEFORE_MEASURING, highlight=False, markup=False)
