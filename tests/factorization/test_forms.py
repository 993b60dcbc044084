"""What the forms say about themselves; that they are right is tested with the streams that follow them."""

import numpy as np
import pytest

from dpkit import factorization as fz
from dpkit.factorization import forms

COLUMN = [1.0, 0.5, 0.25]


@pytest.mark.parametrize(
    ("strategy", "iterations", "kind", "copies"),
    [
        (fz.Identity(), None, forms.White, 0),
        (fz.BandedToeplitz(3, coefficients=COLUMN), None, forms.PastOutputs, 2),
        (fz.BandedToeplitz(3, coefficients=COLUMN), 2, forms.PastOutputs, 1),
        (fz.BandedSquareRoot(8), None, forms.PastOutputs, 7),
        (fz.BandedInverseSquareRoot(8), None, forms.PastInputs, 7),
        (fz.SquareRoot(), 10, forms.PastInputs, 9),
        (fz.Dense(np.eye(5)), None, forms.PastInputs, 4),
        (fz.BufferedLinearToeplitz(theta=[0.5], omega=[0.25]), None, forms.Buffers, 1),
        (fz.WindowScaled(fz.BandedSquareRoot(4), 2, [1.0, 0.5]), None, forms.PastOutputs, 3),
        (fz.Tree(16), None, forms.TreeNodes, 4),
        (fz.Tree(15), None, forms.TreeNodes, 3),
        (fz.Tree(64, restart_every=16), None, forms.TreeNodes, 4),
        (fz.Tree(16, "full"), 8, forms.PastInputs, 7),
    ],
)
def test_what_a_strategy_keeps(strategy, iterations, kind, copies):
    form = strategy.form(iterations)
    assert isinstance(form, kind)
    assert form.copies == copies
    assert form == strategy.form(iterations)


@pytest.mark.parametrize(
    ("strategy", "iterations"),
    [(fz.Identity(), None), (fz.Dense(np.eye(5)), 5), (fz.Tree(7), 7), (fz.Banded(1, coefficients=[[1.0]] * 3), 3)],
)
def test_a_form_knows_how_long_it_lasts(strategy, iterations):
    assert strategy.form().iterations == iterations


@pytest.mark.parametrize(
    ("strategy", "iterations", "message"),
    [
        (fz.SquareRoot(), None, "iterations must be given"),
        (fz.Tree(8), 9, "n must be between 1 and iterations=8"),
        (fz.Dense(np.eye(3)), 4, "n must be <= 3"),
        (fz.Banded(2), None, "no coefficients yet"),
        (fz.Banded(1, coefficients=[[1.0]] * 3), 4, "n must be between 1 and the 3"),
        (fz.BufferedLinearToeplitz(num_buffers=2), None, "no parameters yet"),
        (fz.WindowScaled(fz.Identity()), None, "no scales yet"),
        (fz.Identity(), 0, "iterations must be >= 1"),
    ],
)
def test_strategies_refuse_runs_they_are_not_for(strategy, iterations, message):
    with pytest.raises(ValueError, match=message):
        strategy.form(iterations)
