"""A target narrows what layers may be given, and says so."""

import pytest

from quant_core.allocation.candidates import candidate_bits
from quant_core.errors import SpecError
from quant_core.export import target_of, within_target
from quant_core.spec import FLOAT_BITS, QuantizeSpec
from tests.quant_core.export.networks import NETS, Net


def narrowed(name, **request):
    net, spec = Net(name), QuantizeSpec.model_validate(request)
    candidates = candidate_bits(net.layers, spec)
    return within_target(candidates, net.layers, net.model, spec, target_of(spec))


@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
@pytest.mark.parametrize("name", NETS)
def test_every_width_runs_on_a_cpu(name, target):
    assert {choice.bits for choice in narrowed(name, target=target).values()} == {(2, 3, 4, 5, 6, 8)}


def test_gpus_have_eight_bits_and_blocks_of_four():
    for name, expected in [("conv", {(8,), (4, 8)}), ("transformer", {(FLOAT_BITS,), (8,)})]:
        assert {choice.bits for choice in narrowed(name, target="ort-cuda").values()} == expected
    # Its last layer has 16 inputs, which TensorRT's blocks of 64 do not fill.
    assert {choice.bits for choice in narrowed("conv", target="tensorrt").values()} == {(8,)}


def test_a_layer_without_a_kernel_says_what_it_gets_instead():
    (table, *_) = narrowed("transformer", target="ort-cuda").values()
    assert table.bits == (FLOAT_BITS,)
    assert table.reason == "ort-cuda has no 2, 3, 4, 5, 6, 8-bit kernel for this Gather"


def test_widths_asked_for_that_nothing_can_have_are_refused_with_the_nearest():
    with pytest.raises(SpecError, match="ort-cuda has no kernel for 3-bit") as refused:
        narrowed("conv", target="ort-cuda", bits=[3, 8])
    assert "nearest it has is 4" in str(refused.value)
    assert refused.value.where == "bits"  # as the command line and the client call it
    with pytest.raises(SpecError, match="6-bit") as refused:
        narrowed("conv", target="ort-cuda", bits=[6, 8])
    assert "nearest it has is 4, 8" in str(refused.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight_format": "nvfp4"}, "4-bit weights of this model in nvfp4"),
        ({"symmetric": False}, "-bit weights of this model with zero points"),
        (
            {"bits": [8], "granularity": "block", "block_size": 64},
            "8-bit weights of this model in blocks of 64",
        ),
    ],
)
def test_grids_that_a_target_does_not_have_are_refused_by_name(options, words):
    with pytest.raises(SpecError, match=words):
        narrowed("conv", target="ort-cuda", **options)
    assert {
        choice.bits
        for choice in narrowed("conv", target="ort-cuda", granularity="block", block_size=16).values()
    } == {
        (4,),
        (FLOAT_BITS,),
    }
    with pytest.raises(SpecError, match="in fp8_e4m3"):
        narrowed("conv", target="portable", opset=18, weight_format="fp8_e4m3")


def test_blocks_that_tensorrt_does_not_read_are_refused_with_those_that_it_does():
    with pytest.raises(SpecError, match="in blocks of 32") as refused:
        narrowed("conv", target="tensorrt", granularity="block")
    assert "in blocks of 64 or 128" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "options", "nearest"),
    [
        ("conv", {"target": "ort-cuda", "symmetric": False}, "float, or 4, 8 with symmetric true;"),
        ("conv", {"target": "ort-cuda", "symmetric": False, "bits": [3]}, "float, or 4 with symmetric true;"),
        (
            "conv",
            {"target": "ort-cuda", "bits": [8], "granularity": "block", "block_size": 16},
            "4, float, or 8 with granularity channel;",
        ),
        (
            "conv",
            {"target": "portable", "opset": 18, "weight_format": "fp8_e4m3"},
            "6, float, or 8 with weight_format int, or 8 with opset 19;",
        ),
        (
            "conv",
            {"target": "tensorrt", "activation_bits": 32, "bits": [8]},
            "float, or 8 with activation_bits 8;",
        ),
        (
            "transformer",
            {"target": "tensorrt", "weight_format": "fp8_e5m2"},
            "float, or 8 with weight_format int;",
        ),
    ],
)
def test_what_is_one_change_away_is_told(name, options, nearest):
    with pytest.raises(SpecError) as refused:
        narrowed(name, **options)
    assert f"The nearest it has is {nearest}" in str(refused.value)


def test_pins_that_cannot_be_kept_are_refused_by_layer():
    with pytest.raises(SpecError, match=r"Conv.* at 4 bits") as refused:
        narrowed("conv", target="tensorrt", pin={"Conv": 4})
    assert "Let it have 8, float" in str(refused.value)


def test_the_opset_is_chosen_for_portable_files_alone():
    assert target_of(QuantizeSpec(target="portable", opset=18)).opset({2}) == 18
    assert target_of(QuantizeSpec(target="portable")).opset({2}) == 21
    with pytest.raises(ValueError, match="only portable"):
        QuantizeSpec(target="tensorrt", opset=18)
