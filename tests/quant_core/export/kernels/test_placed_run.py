"""What lies between the kernels of a file."""

from quant_core.export.kernels.placed_run import PlacedRun
from tests.quant_core.export.kernels.test_run_time import CHAIN, PLANE, placed


def test_what_is_gone_over_between_kernels_is_listed():
    names = dict.fromkeys(("x", "a", "b", "y"), PLANE)
    assert sorted(PlacedRun(*placed(CHAIN), names).passes) == [("x", "border"), ("y", "border")]
    between = [(name, "border") for name in "abxy"] + [(name, "blocks") for name in "ab"]
    assert sorted(PlacedRun(*placed(CHAIN, floats={"v"}), names).passes) == sorted(between)
