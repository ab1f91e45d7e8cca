from __future__ import annotations

import math

from quant_core.report.choice_table import SHADES, choice_table
from quant_core.spec import FLOAT_BITS


def test_one_cell_of_a_row_is_the_choice_and_more_loss_is_never_lighter(job):
    report, table, _ = job(12)
    found = choice_table(report, table)
    assert found is not None
    assert found.bits == (2, 3, 4, 5, 6, 8)
    cells = []
    for layer, row, (name, shades) in zip(report.layers, table.layers, found.rows, strict=True):
        assert name == layer.name
        chosen = [b for b, shade in zip(found.bits, shades, strict=True) if shade.chosen]
        assert chosen == ([] if layer.weight_bits == FLOAT_BITS else [layer.weight_bits])
        cells += [(row.sensitivity[b], shade.level) for b, shade in zip(found.bits, shades, strict=True)]
    levels = [level for _, level in sorted(cells)]
    assert levels == sorted(levels)
    assert (levels[0], levels[-1]) == (0, SHADES - 1)


def test_no_loss_no_table_and_no_number_no_shade(job):
    assert choice_table(*job(9, lossless=True)[:2]) is None
    report, table, _ = job(6)
    rows = list(table.layers)
    rows[2] = rows[2].model_copy(update={"sensitivity": {4: math.inf}})
    found = choice_table(report, table.model_copy(update={"layers": tuple(rows)}))
    assert found is not None
    assert [shade.level for shade in found.rows[2][1]] == [None] * 6
