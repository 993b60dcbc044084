"""Weights of symmetric laws on the integers, as exact integers of hundreds of digits.

A law is proportional to `weights[|k|]`; what a list leaves out is less likely than `RANGE` times its value at 0. Sums
and differences of such weights are exact, and their quotients are correctly rounded: tails keep their digits however
long the law is.
"""

import math
from fractions import Fraction

import numpy as np

_BITS = 1300
# Weights below 2^180 are left out: those kept have 180 bits or more, and quotients of two of them fit a float.
_SMALLEST = 1 << 180
RANGE = 2.0**-1019
"""More than the likelihood, relative to that of 0, of every value left out."""
_ONE = 1 << 1200


def gaussian_weights(variance: Fraction) -> list[int]:
    """exp(-k^2 / (2 variance)) for k = 0, 1, ...

    >>> [weight / _ONE for weight in gaussian_weights(Fraction(1, 4))[:2]]  # 1 and e^-2
    [1.0, 0.1353352832366127]
    """
    factor = _exp_minus(1 / (2 * variance))
    square = factor * factor >> _BITS
    weights = [_ONE]
    # From k - 1 to k the weight changes by factor^(2k - 1).
    while (following := weights[-1] * factor >> _BITS) >= _SMALLEST:
        weights.append(following)
        factor = factor * square >> _BITS
    return weights


def bessel_weights(argument: Fraction) -> list[int]:
    """I_k(argument) / I_0(argument) for k = 0, 1, ..., I_k the modified Bessel function.

    By backward recurrence of r_k = I_k / I_(k-1) = 1 / (2k / argument + r_(k+1)), all of whose terms are positive: it
    starts at 0 so far out that the error has died away, by r_k^2 per step.

    >>> round(bessel_weights(Fraction(2))[1] / _ONE, 12)  # I_1(2) / I_0(2)
    0.697774657964
    """
    unit, step = 1 << _BITS, (2 * argument.denominator << _BITS) // argument.numerator
    ratio, ratios = 0, []
    for k in range(_last_order(argument), 0, -1):
        ratio = (unit << _BITS) // (k * step + ratio)
        ratios.append(ratio)
    weights = [_ONE]
    while ratios and (following := weights[-1] * ratios.pop() >> _BITS) >= _SMALLEST:
        weights.append(following)
    return weights


def _last_order(argument: Fraction) -> int:
    """Where the product of the ratios has fallen below 2^-2400: r_k <= exp(-asinh((k - 1/2) / argument))."""
    scale, nats = float(argument), 2400 * math.log(2)
    last = 1024
    while (total := np.cumsum(np.arcsinh((np.arange(last) + 0.5) / scale)))[-1] < nats:
        last *= 2
    return int(np.searchsorted(total, nats)) + 2


def _exp_minus(x: Fraction) -> int:
    """e^-x in units of 2^-_BITS, by Taylor's series of a small fraction of x, squared again."""
    if x > _BITS:
        return 0
    halvings = math.ceil(x).bit_length() + 16
    guard = _BITS + 64 + halvings
    small = (x.numerator << guard) // (x.denominator << halvings)
    total, term, k = 0, 1 << guard, 0
    while term:
        total += -term if k % 2 else term
        k += 1
        term = (term * small >> guard) // k
    for _ in range(halvings):
        total = total * total >> guard
    return total >> (guard - _BITS)
