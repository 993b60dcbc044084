"""The FFT composition against exact rational convolution: its error bounds hold, and are not idle."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpkit.accounting.convolution import OutOfMemoryError, compose_lattices
from dpkit.accounting.saddle import Saddle
from dpkit.mechanisms.discretization import LatticeLoss


def saddle(tilt: float, epsilon: float) -> Saddle:
    return Saddle(tilt, epsilon, log_delta=-10.0, width=1.0, spread=1.0, total=1)


def law(weights: list[int], first: int, step: float = 0.25, infinite: float = 0.0, offset: float = 0.0) -> LatticeLoss:
    probabilities = np.array(weights, dtype=float) / sum(weights) * (1 - infinite)
    return LatticeLoss(offset, step, first, probabilities, infinite)


def exact_sum(laws: list[LatticeLoss], counts: list[int]) -> dict[int, Fraction]:
    """Probabilities of the sum of lattice indices, exactly."""
    total = {0: Fraction(1)}
    for lattice, count in zip(laws, counts, strict=True):
        own = {lattice.first + i: Fraction(float(p)) for i, p in enumerate(lattice.probabilities)}
        for _ in range(count):
            grown: dict[int, Fraction] = {}
            for (a, p), (b, q) in itertools.product(total.items(), own.items()):
                grown[a + b] = grown.get(a + b, Fraction(0)) + p * q
            total = grown
    return total


def exact_delta(laws: list[LatticeLoss], counts: list[int], epsilon: float) -> float:
    """Hockey-stick of the sum with its infinite mass, to full float accuracy."""
    offset = sum(count * lattice.offset for lattice, count in zip(laws, counts, strict=True))
    log_finite = math.fsum(n * math.log1p(-lattice.infinite_mass) for lattice, n in zip(laws, counts, strict=True))
    terms = [
        float(p) * -math.expm1(epsilon - (offset + laws[0].step * i))
        for i, p in exact_sum(laws, counts).items()
        if offset + laws[0].step * i > epsilon
    ]
    return -math.expm1(log_finite) + math.fsum(terms)


weights = st.lists(st.integers(0, 50), min_size=2, max_size=6).filter(lambda w: sum(w) > 0)


@given(
    first=weights,
    second=weights,
    counts=st.tuples(st.integers(1, 6), st.integers(1, 4)),
    starts=st.tuples(st.integers(-4, 2), st.integers(-3, 3)),
    tilt=st.floats(0.01, 30),
    epsilon=st.floats(0, 5),
    infinite=st.sampled_from([0.0, 1e-9, 1e-3]),
    offset=st.floats(-0.1, 0.1),
)
def test_curve_brackets_exact_convolution(first, second, counts, starts, tilt, epsilon, infinite, offset):
    laws = [law(first, starts[0], infinite=infinite, offset=offset), law(second, starts[1])]
    curve, _ = compose_lattices(laws, list(counts), saddle(tilt, epsilon), 1e8)
    exact = exact_delta(laws, list(counts), epsilon)
    assert curve.lower_delta(epsilon) <= exact * (1 + 1e-12) + 1e-300
    assert exact <= curve.upper_delta(epsilon) * (1 + 1e-12)


@pytest.mark.parametrize("epsilon", [0.3, 1.1, 2.0, 3.3])
def test_curve_is_accurate_at_its_saddle(epsilon):
    laws, counts = [law([30, 20, 15, 10, 5, 2, 1], -2), law([5, 1], 0)], [6, 3]
    curve, _ = compose_lattices(laws, counts, saddle(2.0, epsilon), 1e8)
    exact = exact_delta(laws, counts, epsilon)
    assert curve.lower_delta(epsilon) == pytest.approx(exact, rel=1e-10)
    assert curve.upper_delta(epsilon) == pytest.approx(exact, rel=1e-10)
    assert curve.upper_epsilon(exact) == pytest.approx(epsilon, rel=1e-9)
    assert curve.lower_epsilon(exact) <= epsilon <= curve.upper_epsilon(exact)


def test_error_bound_covers_the_error_of_the_transform():
    """A Bernoulli loss repeated 10^5 times: the binomial law in exact logarithms is the truth."""
    count, p, step = 100_000, 0.01, 0.01
    lattice = LatticeLoss(0.0, step, 0, np.array([1 - p, p]), 0.0)
    for epsilon in (10.8, 12.0, 14.0):
        share = epsilon / (count * step)
        tilt = math.log(share * (1 - p) / (p * (1 - share))) / step
        curve, _ = compose_lattices([lattice], [count], saddle(tilt, epsilon), 1e9)
        k = np.arange(math.ceil(epsilon / step), 12_000)
        log_terms = (
            np.array([math.lgamma(count + 1) - math.lgamma(j + 1) - math.lgamma(count - j + 1) for j in k.tolist()])
            + k * math.log(p)
            + (count - k) * math.log1p(-p)
        )
        exact = float(np.sum(np.exp(log_terms) * -np.expm1(epsilon - step * k)))
        lower, upper = curve.lower_delta(epsilon), curve.upper_delta(epsilon)
        # lgamma differences of size 10^6 keep nine digits.
        assert lower <= exact * (1 + 1e-8)
        assert exact <= upper * (1 + 1e-8)
        assert upper / lower - 1 < 1e-4


def test_poor_tilt_loses_accuracy_not_soundness():
    laws, counts = [law([30, 20, 15, 10, 5, 2, 1], -2)], [6]
    for tilt in (1e-4, 1e-2, 50.0, 400.0):
        curve, _ = compose_lattices(laws, counts, saddle(tilt, 1.0), 1e8)
        for epsilon in (0.0, 0.5, 1.0, 2.5, 6.0, 9.0):
            exact = exact_delta(laws, counts, epsilon)
            assert curve.lower_delta(epsilon) <= exact * (1 + 1e-12)
            assert exact <= curve.upper_delta(epsilon) * (1 + 1e-12) + 1e-300


def test_window_beyond_memory_raises():
    lattice = LatticeLoss(0.0, 1e-6, 0, np.full(1000, 1e-3), 0.0)
    with pytest.raises(OutOfMemoryError, match="max_memory"):
        compose_lattices([lattice], [10**9], saddle(1.0, 1.0), 1e6)
