"""Sampled sequences and their sums against mpmath, from closed forms of powers."""

import math

import numpy as np
import pytest

from dpkit.numerics.contour_sums import StepSamples, _nodes
from mechanisms.exact import mp

SIZES = [1, 2, 16, 17, 31, 32, 33, 100, 2052, 10**6, 10**9]


@pytest.mark.parametrize(
    ("terms", "count"), [(1, 1), (16, 16), (17, 12), (24, 14), (100, 1), (100, 2), (10**6, 7), (2**30, 14)]
)
def test_nodes_sum_polynomials_exactly(terms, count):
    nodes, weights = _nodes(terms, count)
    assert len(nodes) == count
    assert np.all(weights > 0)
    with mp.workdps(400):
        for degree in range(2 * count):
            # The binomial (t, degree) as Newton's product; its sum is (terms, degree + 1).
            values = [mp.fprod((mp.mpf(t) - i) / (i + 1) for i in range(degree)) for t in nodes]
            total = mp.fsum(mp.mpf(w) * v for w, v in zip(weights, values, strict=True))
            truth = mp.mpf(math.comb(terms, degree + 1))
            size = mp.fsum(mp.mpf(w) * abs(v) for w, v in zip(weights, values, strict=True))
            assert abs(total - truth) <= 1e-11 * (size + truth)


@pytest.mark.parametrize("n", SIZES)
def test_powers_at_the_nodes(n):
    samples = StepSamples([n])
    assert np.sum(samples.weights) == pytest.approx(n, rel=1e-13)
    v = samples.points
    for s in [0.0, *np.geomspace(1e-10, 1, 30)]:
        decay = np.exp(np.log1p(-min(s, 1 - 1e-16)) * samples.steps)
        np.testing.assert_allclose(samples.values((1 + v) / (v + s)), decay, atol=3e-14)
        # Poles of order two and three: (t + 1) theta^t and (t + 1) (t + 2) / 2 theta^t.
        t = samples.steps
        for order, growth in [(2, t + 1), (3, (t + 1) * (t + 2) / 2)]:
            error = samples.values(((1 + v) / (v + s)) ** order) - growth * decay
            assert np.all(np.abs(error) <= 1e-12 * growth)


@pytest.mark.parametrize("n", SIZES)
def test_sums_of_products_of_powers(n):
    samples = StepSamples([n])
    w = 1 + samples.points
    with mp.workdps(80):
        for s in (0.0, 1e-9, 0.3 / n, min(5 / n, 0.5), 1e-3, 0.1, 0.9, 1.0):
            y = samples.values(w / (samples.points + s))
            square = (1 - mp.mpf(s)) ** 2
            total = mp.mpf(n) if s == 0 else (1 - square**n) / (1 - square)
            falling = mp.mpf(n) * (n + 1) / 2 if s == 0 else (n - square * total) / (1 - square)
            assert abs(samples.weights @ y**2 / total - 1) < 3e-14
            assert abs(samples.weights @ ((n - samples.steps) * y**2) / falling - 1) < 3e-14


def test_segments_are_those_of_the_whole():
    ends = [3, 16, 20, 100, 101, 5000, 5020, 10**6]
    samples = StepSamples(ends)
    w = 1 + samples.points
    y = samples.values(w / (w - 0.999))
    sums = np.add.reduceat(samples.weights * y**2, samples.firsts)
    squares = 0.999 ** (2 * np.arange(10**6))
    np.testing.assert_allclose(sums, np.add.reduceat(squares, [0, *ends[:-1]]), rtol=1e-12, atol=1e-12)


def test_gradient_is_the_adjoint_of_the_values():
    samples = StepSamples([7, 1000])
    generator = np.random.default_rng(0)
    by_value = generator.normal(size=len(samples.steps))
    change = generator.normal(size=len(samples.points)) + 1j * generator.normal(size=len(samples.points))
    forward = by_value @ samples.values(change)
    assert (samples.gradient(by_value) @ change).imag == pytest.approx(forward, rel=1e-12)
