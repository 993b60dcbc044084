"""Geometric sums against mpmath, from the definition for few terms and by closed forms at 60 digits for many."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpkit.numerics.geometric_sums import geometric_sum, product_complement
from mechanisms.exact import mp

complements = st.one_of(st.floats(0, 1), st.floats(-20, 0).map(lambda e: 10.0**e))


def relative(value, truth) -> float:
    return float(abs(mp.mpf(float(value)) - truth) / abs(truth)) if truth else abs(float(value))


def sums(n: int, u: float):
    """The sum and its derivative."""
    q = 1 - mp.mpf(u)
    if n <= 60:
        return (
            mp.fsum(q**t for t in range(n)),
            -mp.fsum(t * q ** (t - 1) for t in range(1, n)),
        )
    plain = (1 - q**n) / (1 - q)
    slope = (plain - n * q ** (n - 1)) / (1 - q)
    return plain, -slope


@given(st.integers(0, 60), complements)
@example(0, 0.0)
@example(1, 1.0)
@example(60, 0.0)
@example(60, 1 / 60)
@example(60, 1e-300)
def test_few_terms(n, u):
    with mp.workdps(60):
        for value, truth in zip(geometric_sum(n, u), sums(n, u), strict=True):
            assert relative(value, truth) < 2e-14


@pytest.mark.parametrize("n", [61, 10**3, 10**6, 10**9, 10**12])
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 0.5, 0.999, 1.0, 1.001, 2.0, 30.0, 1e3])
def test_many_terms(n, scale):
    u = min(scale / n, 1.0)
    # The closed forms lose up to 3 log10(n / scale) digits.
    with mp.workdps(120):
        for value, truth in zip(geometric_sum(n, u), sums(n, u), strict=True):
            assert relative(value, truth) < 2e-14


def test_a_ratio_of_one_gives_the_triangular_numbers():
    n = 10**9
    np.testing.assert_allclose(geometric_sum(n, 0.0), [n, -n * (n - 1) // 2], rtol=1e-15)


def test_arguments_broadcast():
    value, slope = geometric_sum(np.array([[2], [3]]), np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(value, [[2, 1.5, 1], [3, 1.75, 1]])
    np.testing.assert_allclose(slope, [[-1, -1, -1], [-3, -2, -1]])


@given(complements, complements)
def test_product_complement(u, v):
    with mp.workdps(60):
        assert relative(product_complement(u, v), 1 - (1 - mp.mpf(u)) * (1 - mp.mpf(v))) < 4e-16
