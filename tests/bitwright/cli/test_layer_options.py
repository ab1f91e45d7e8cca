"""Options of single layers on the command line are the rules of a request."""

import inspect

import pytest
import typer

from bitwright.cli.failures import OptionError
from bitwright.cli.quantize import quantize, read_spec


def spec_of(**given):
    names = inspect.signature(quantize).parameters
    assert set(given) <= set(names)
    plain = {"seed": 0, "device": "cpu", "spectrum": False, "asymmetric": False, "keep_quantized": False}
    return read_spec(dict.fromkeys(names) | plain | given)


def test_layers_get_bits_and_activations_of_their_own():
    rules = spec_of(
        pin=["fc=8"],
        exclude=["stem"],
        float_activations=["head*"],
        layer_activations=["fc=16", "a=b=float", "neck=8"],
    ).rules
    assert [rule.model_dump(exclude_defaults=True) for rule in rules] == [
        {"match": "fc", "pin": 8},
        {"match": "stem", "exclude": True},
        {"match": "head*", "activation_bits": 32},
        {"match": "fc", "activation_bits": 16},
        {"match": "a=b", "activation_bits": 32},
        {"match": "neck", "activation_bits": 8},
    ]


def test_bits_that_activations_cannot_have_are_refused():
    with pytest.raises(OptionError, match="layer-activations"):
        spec_of(layer_activations=["fc=4"])
    with pytest.raises(typer.BadParameter, match="GLOB=BITS, such as head=16"):
        spec_of(layer_activations=["fc"])


def test_a_name_that_is_given_two_widths_is_refused():
    assert len(spec_of(pin=["fc=8", "fc=8"]).rules) == 1
    with pytest.raises(typer.BadParameter, match="fc is given 8 and 2"):
        spec_of(pin=["fc=8", "fc=2"])
