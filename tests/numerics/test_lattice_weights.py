"""Weights of integer laws against mpmath at 400 digits."""

from fractions import Fraction

import pytest
from mpmath import ctx_mp

from dpkit.numerics.lattice_weights import RANGE, bessel_weights, gaussian_weights

mp = ctx_mp.MPContext()
mp.dps = 420


def exact(value: Fraction):
    return mp.mpf(value.numerator) / value.denominator


PARAMETERS = [Fraction(1, 200), Fraction(9, 4), Fraction(1.1), Fraction(250)]


@pytest.mark.parametrize("parameter", PARAMETERS)
@pytest.mark.parametrize("kind", ["gaussian", "bessel"])
def test_weights_have_fifty_digits(kind, parameter):
    x = exact(parameter)
    if kind == "gaussian":
        weights, truth = gaussian_weights(parameter), lambda k: mp.exp(-mp.mpf(k * k) / (2 * x))
    else:
        weights, truth = bessel_weights(parameter), lambda k: mp.besseli(k, x) / mp.besseli(0, x)
    last = len(weights) - 1
    for k in {0, 1, 2, last // 3, last} & set(range(last + 1)):
        assert abs(mp.mpf(weights[k]) / weights[0] / truth(k) - 1) < mp.mpf(10) ** -50
    assert truth(last + 1) < RANGE
    assert truth(last) > RANGE / 4


def test_a_law_of_one_value_has_one_weight():
    assert len(gaussian_weights(Fraction(1, 10**300))) == 1
