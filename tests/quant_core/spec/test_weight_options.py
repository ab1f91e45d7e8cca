import pytest
from pydantic import ValidationError

from quant_core.spec import AnalyzeSpec, QuantizeSpec, WeightGrid, WeightOptions


def test_a_format_takes_the_place_of_integers_of_its_width():
    options = WeightOptions(weight_format="nvfp4", granularity="channel", symmetric=False)
    assert options.grid(4) == WeightGrid("block", 16, format="nvfp4", range_search="hessian")
    assert options.grid(8) == WeightGrid("channel", 32, symmetric=False, range_search="hessian", turned=True)
    assert WeightOptions(weight_format="mxfp4").grid(4).block == 32
    assert WeightOptions(weight_format="fp8_e5m2", granularity="tensor").grid(8) == WeightGrid(
        "tensor", format="fp8_e5m2", range_search="hessian"
    )
    assert WeightOptions(weight_range="mse").grid(8) == WeightGrid(turned=True)


@pytest.mark.parametrize("spec", [QuantizeSpec, AnalyzeSpec, WeightOptions])
def test_an_effort_says_what_is_not_said(spec):
    assert spec(effort="balanced").model_copy(update={"effort": "best"}) == spec().model_copy(
        update={"effort": "best"}
    )
    fast, best = spec(effort="fast"), spec.model_validate({"effort": "best"})
    assert (fast.rounding, fast.descent, fast.equalize) == ("gptq", False, "none")
    assert not getattr(fast, "follow", False)
    assert (best.rounding, best.equalize) == ("reconstruction", "auto")
    assert spec(effort="fast", descent=True).descent
    assert spec(effort="best", weight_format="mxfp4").rounding == "gptq"
    assert spec.model_validate_json(fast.model_dump_json()) == fast
    with pytest.raises(ValidationError, match="effort"):
        spec(effort="utmost")


@pytest.mark.parametrize("spec", [QuantizeSpec, AnalyzeSpec])
def test_a_format_needs_its_width_among_the_candidates(spec):
    with pytest.raises(ValidationError, match="nvfp4 has 4 bits"):
        spec(weight_format="nvfp4", bits=[2, 8])
    assert spec(weight_format="nvfp4", bits=[4, 8]).grid(4).format == "nvfp4"


def test_codes_without_order_are_not_tuned():
    with pytest.raises(ValidationError, match="round by gptq"):
        WeightOptions(rounding="reconstruction", weight_format="mxfp4")


@pytest.mark.parametrize("size", [15, 257])
def test_blocks_have_16_to_256_inputs(size):
    with pytest.raises(ValidationError, match="block_size"):
        WeightOptions(granularity="block", block_size=size)


@pytest.mark.parametrize(
    ("grid", "bits", "effective"),
    [
        (WeightGrid(), 4, 4),
        (WeightGrid("block", 32), 4, 4.5),
        (WeightGrid("block", 16, symmetric=False), 4, 4 + 20 / 16),
        (WeightGrid("block", 16, format="nvfp4"), 4, 4.5),
        (WeightGrid("block", 32, format="mxfp4"), 4, 4.25),
        (WeightGrid("tensor", format="fp8_e4m3"), 8, 8),
    ],
)
def test_what_blocks_store_counts(grid, bits, effective):
    assert grid.effective_bits(bits) == effective


@pytest.mark.parametrize(
    ("grid", "suited", "turned"),
    [
        (WeightGrid(turned=True), {2, 4, 8}, {2, 4}),
        (WeightGrid(), {2, 4, 8}, set()),
        (WeightGrid(symmetric=False, turned=True), {2, 4}, set()),
        (WeightGrid("block", turned=True), set(), {2, 4}),
        (WeightGrid("tensor", format="fp8_e4m3", turned=True), set(), set()),
    ],
)
def test_integer_kernels_take_some_grids_and_steps_turn_on_some(grid, suited, turned):
    assert {bits for bits in (2, 4, 8) if grid.suits_int8_kernels(bits)} == suited
    assert {bits for bits in (2, 4, 8) if grid.turns(bits)} == turned


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "gptq"),
        ({"rounding": "reconstruction", "symmetric": False}, "gptq, zero points"),
        ({"granularity": "block", "block_size": 64, "weight_format": "nvfp4"}, "gptq, blocks of 64, nvfp4"),
        ({"granularity": "tensor", "rounding": "nearest"}, "nearest, tensor scales"),
    ],
)
def test_sensitivities_say_what_grid_they_are_those_of(options, told):
    assert WeightOptions(**options).scored_as == told


@pytest.mark.parametrize("spec", [QuantizeSpec, AnalyzeSpec, WeightOptions])
def test_shares_of_outliers_are_read(spec):
    assert spec().outlier_shares == ()
    assert spec(sparse="0.02").outlier_shares == (0.02,)
    assert spec(sparse=0).sparse == 0
    auto = spec(sparse="auto")
    assert auto.outlier_shares
    assert spec.model_validate_json(auto.model_dump_json()) == auto
    # They belong to layers with outliers; scores of those without stay what they were.
    assert auto.scored_as == spec().scored_as


@pytest.mark.parametrize("share", [-0.1, 0.0001, 0.2, "many", float("nan")])
def test_shares_that_make_no_sense_are_refused(share):
    with pytest.raises(ValidationError, match="not a share of outliers; write auto, 0, or"):
        WeightOptions(sparse=share)


@pytest.mark.parametrize(
    "other",
    [
        {"granularity": "block"},
        {"weight_format": "nvfp4"},
        {"rounding": "nearest"},
        {"rounding": "stochastic"},
    ],
)
def test_outliers_are_refused_where_there_are_none_with_the_nearest_that_can(other):
    with pytest.raises(ValidationError, match=r"(granularity channel|round by gptq)"):
        WeightOptions.model_validate({"sparse": 0.01} | other)


@pytest.mark.parametrize("target", ["tensorrt", "ort-cuda"])
def test_gpus_unpack_no_outliers(target):
    with pytest.raises(ValidationError, match="the nearest it has are blocks"):
        QuantizeSpec(target=target, sparse="auto")
    assert QuantizeSpec(target="portable", sparse="auto").sparse == "auto"


@pytest.mark.parametrize(
    "other",
    [{"granularity": "block"}, {"weight_format": "nvfp4"}, {"symmetric": False}, {"rounding": "nearest"}],
)
def test_a_trellis_is_refused_where_there_is_none_with_the_nearest_that_can(other):
    with pytest.raises(ValidationError, match="granularity channel, weight_format int"):
        QuantizeSpec.model_validate({"trellis": True} | other)
    assert not QuantizeSpec.model_validate(other).trellis


@pytest.mark.parametrize("target", ["tensorrt", "ort-cuda"])
def test_gpus_decode_no_trellis(target):
    with pytest.raises(ValidationError, match="the target ort-cpu or portable"):
        QuantizeSpec(target=target, trellis=True)
    assert QuantizeSpec(target="portable", trellis=True).trellis
