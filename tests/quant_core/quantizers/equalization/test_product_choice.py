"""Products by scales of channels, chosen for what they give the whole file."""

from itertools import combinations

import numpy as np
import pytest

from quant_core.quantizers.equalization.channel_group import ChannelGroup
from quant_core.quantizers.equalization.channel_scales import ChannelScales
from quant_core.quantizers.equalization.product_choice import Product, worth_their_time
from quant_core.quantizers.equalization.scale_choice import Promise


def product(name, gain, time):
    group = ChannelGroup((name,), 2, (), (), behind=True)
    return Product(Promise(ChannelScales(group, np.ones(2)), gain), time)


def names(chosen):
    return [scales.group.tensors[0] for scales in chosen]


def cost(chosen, noise):
    left = noise - sum(found.promise.gain for found in chosen)
    return 10 * np.log10(left / noise) / 15 + sum(found.time for found in chosen)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_set_gives_more_for_its_time(seed):
    rng = np.random.default_rng(seed)
    gains = rng.dirichlet(np.ones(9))[:8]
    products = [product(str(i), gains[i], rng.uniform(0.001, 0.1)) for i in range(8)]
    taken = {int(name) for name in names(worth_their_time(products, 1.0))}
    every = [some for count in range(9) for some in combinations(range(8), count)]
    assert taken == set(min(every, key=lambda some: cost([products[i] for i in some], 1.0)))


def test_what_is_too_dear_alone_may_be_worth_it_together():
    """Each takes a ninth of the noise, 0.5 dB, for 5 % of the time; all eight 9.5 dB for 40 %."""
    products = [product(str(i), 1 / 9, 0.05) for i in range(8)]
    assert worth_their_time(products[:1], 1.0) == []
    assert names(worth_their_time(products, 1.0)) == [str(i) for i in range(8)]


def test_a_decibel_is_worth_a_fifteenth_of_the_time():
    gain = 1 - 10**-0.1
    assert names(worth_their_time([product("a", gain, 0.066)], 1.0)) == ["a"]
    assert worth_their_time([product("a", gain, 0.0675)], 1.0) == []
    assert worth_their_time([product("a", gain, 0.066)], 2.0) == []


def test_the_better_of_two_products_for_a_tensor_is_taken():
    products = [product("a", 0.2, 0.01), product("b", 0.3, 0.01), product("a", 0.4, 0.01)]
    chosen = worth_their_time(products, 1.0)
    assert names(chosen) == ["b", "a"]
    assert chosen[1] is products[2].promise.scales


def test_nothing_to_choose_from():
    assert worth_their_time([], 0.0) == []
