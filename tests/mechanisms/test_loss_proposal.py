import mpmath
import numpy as np
import pytest

from dpkit.mechanisms.loss_proposal import LossProposal, log_largest_term


class Bounded(LossProposal):
    """Only the bounds that follow from the power and the constant."""

    width = 1

    def __init__(self, power: float, log_constant: float):
        self.power, self.log_constant = power, log_constant

    def sample(self, generator: np.random.Generator, count: int):
        raise NotImplementedError


@pytest.mark.parametrize("power", [0.0, 1e-9, 0.3, 1.0, 7.0, 1e4])
def test_the_largest_term_is_the_maximum(power):
    with mpmath.workdps(40):
        t = mpmath.mpf(power)
        top = mpmath.log1p(1 / t) if power else mpmath.mpf(100)

        def term(x):
            return mpmath.log(-mpmath.expm1(-x)) - t * x

        assert log_largest_term(power) == pytest.approx(float(term(top)), rel=1e-12, abs=1e-12)
        for factor in (0.5, 0.9, 1.1, 2.0):
            assert term(top * factor) <= log_largest_term(power) + 1e-12


def test_bounds_overflow_to_infinity():
    assert Bounded(2.0, 800.0).largest_weight(1.0) == np.inf
    assert Bounded(2.0, 800.0).largest_term(1.0) == np.inf
    assert Bounded(2.0, 800.0).largest_weight(400.0) == 1.0
    assert Bounded(2.0, -2000.0).largest_term(1.0) == 0.0
