"""The law of randomized quantization against the enumeration of every set of kept levels."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from dpkit.numerics import quantization
from mechanisms.exact import mp


def enumerated(levels: int, keep: Fraction, place: Fraction) -> list[Fraction]:
    """Exact probabilities of each output for an input `place` spacings above the lowest level."""
    result = [Fraction(0)] * levels
    for kept in itertools.product([False, True], repeat=levels - 2):
        weight = Fraction(1)
        for one in kept:
            weight *= keep if one else 1 - keep
        chosen = [0, *(i + 1 for i, one in enumerate(kept) if one), levels - 1]
        lower, upper = max(i for i in chosen if i <= place), min(i for i in chosen if i >= place)
        share = (place - lower) / (upper - lower) if upper > lower else Fraction(0)
        result[lower] += weight * (1 - share)
        result[upper] += weight * share
    return result


@pytest.mark.parametrize("levels", [2, 3, 4, 7, 10])
@pytest.mark.parametrize("keep", [0.0, 1e-6, 0.42, 0.97])
def test_law_is_that_of_every_set_of_kept_levels(levels, keep):
    laws = quantization.level_log_pmf(levels, keep)
    middle = Fraction(levels - 1, 2)
    for place in {Fraction(0), Fraction(1, 3), Fraction(1), middle, middle + Fraction(1, 7), Fraction(levels - 1)}:
        truth = np.array([float(p) for p in enumerated(levels, Fraction(keep), place)])
        np.testing.assert_allclose(np.exp(quantization.log_pmf(laws, place - middle)), truth, rtol=2e-15 * levels)


@pytest.mark.parametrize("keep", [0.001, 0.05, 0.42, 0.95])
def test_a_thousand_levels_sum_to_one(keep):
    laws = quantization.level_log_pmf(1024, keep)
    np.testing.assert_allclose(np.exp(laws).sum(axis=1), 1.0, rtol=0, atol=1e-14)
    # The mean output is the input.
    np.testing.assert_allclose(np.exp(laws) @ np.arange(1024), np.arange(1024), rtol=1e-13)


@pytest.mark.parametrize("levels", [2, 3, 6, 7])
@pytest.mark.parametrize("reach", [Fraction(1, 10**9), Fraction(2, 5), Fraction(9, 10)])
def test_ratios_to_the_middle_keep_their_digits(levels, reach):
    keep = Fraction(0.3)
    laws = quantization.level_log_pmf(levels, 0.3)
    middle = Fraction(levels - 1, 2)
    offsets = quantization.vertices(levels, min(reach, middle * (1 - Fraction(1, 10**6))))
    at_middle = enumerated(levels, keep, middle)
    for offset, row in zip(offsets, quantization.log_ratios_to_middle(laws, offsets), strict=True):
        here = enumerated(levels, keep, middle + offset)
        ratios = [p / q for p, q in zip(here, at_middle, strict=True)]
        truth = [float(mp.log(mp.mpf(x.numerator) / x.denominator)) for x in ratios]
        np.testing.assert_allclose(row, truth, rtol=1e-13 * levels, atol=0)


@pytest.mark.parametrize(
    ("levels", "reach", "expected"),
    [
        (2, Fraction(1, 3), [Fraction(-1, 3), Fraction(1, 3)]),
        (3, Fraction(1, 3), [Fraction(-1, 3), 0, Fraction(1, 3)]),
        (5, Fraction(1), [-1, 0, 1]),
        (6, Fraction(7, 4), [Fraction(x, 4) for x in (-7, -6, -2, 2, 6, 7)]),
    ],
)
def test_vertices_are_the_ends_and_the_levels_between(levels, reach, expected):
    assert quantization.vertices(levels, reach) == expected
