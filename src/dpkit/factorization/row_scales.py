"""Scales of the rows of a strategy matrix: constant on windows of steps, never increasing; and the best of them."""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.values import Array, ByValue

Steps = NDArray[np.int_]

# A quantity that is a sum over windows, each window's part known, (m,); and the gradient, in whatever parameters, of
# `weights @ parts`, as a function of the weights (m,).
Shares = tuple[Array, Callable[[Array], Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class RowScales(ByValue):
    """Row t of D T is that of T times sqrt(squares[w]), w the window of step t; the last window lasts to the end.

    `squares` (m,) are positive and do not increase, so that the noise variances 1 / squares do not decrease.
    """

    window: int
    squares: Array

    def starts(self, n: int) -> Steps:
        """The first steps of the windows that a run of n steps reaches."""
        return self.window * np.arange(min(len(self.squares), -(-n // self.window)))

    def at(self, steps: Steps) -> Array:
        """The squared scales of these steps."""
        return self.squares[np.minimum(steps // self.window, len(self.squares) - 1)]

    def noise_increments(self, n: int) -> tuple[Steps, Array]:
        """(steps from which on the variance of the noise is larger, by how much), the first of them step 0."""
        starts = self.starts(n)
        increments = np.diff(1 / self.at(starts), prepend=0.0)
        return starts[increments > 0], increments[increments > 0]


UNSCALED = RowScales(1, np.ones(1))


def by_step(values: Array, starts: Steps, n: int) -> Array:
    """`values` (m,) of windows that begin at `starts` (m,), the last up to n, repeated for every step (n,)."""
    return np.repeat(values, np.diff(starts, append=n))


def window_starts(schema: ParticipationSchema, *, scaled: bool) -> Steps:
    """The windows an optimiser may scale: one for each participation of the worst pattern, or the whole run as one."""
    return schema.min_sep * np.arange(schema.max_participations if scaled else 1)


def best_squares(errors: Array, sensitivities: Array) -> Array:
    """The squared scales u (m,), not increasing and u[0] = 1, of least `(errors @ (1 / u)) * (sensitivities @ u)`.

    Up to a factor they minimise `sum_w errors_w / u_w + sensitivities_w u_w`, which is convex in each log(u_w) and
    least where u_w^2 = errors_w / sensitivities_w. In that order violators are pooled, and a pool's u^2 is the quotient
    of its sums: the antitonic regression of the quotients with weights `sensitivities` > 0.

    References: Best, Chakravarti and Ubhaya (2000), "Minimizing separable convex functions subject to simple chain
    constraints", for pooling.

    >>> best_squares(np.array([9.0, 1.0, 4.0]), np.array([1.0, 1.0, 1.0]))
    array([1.        , 0.52704628, 0.52704628])
    """
    quotients = optimize.isotonic_regression(errors / sensitivities, weights=sensitivities, increasing=False).x
    return np.sqrt(quotients / quotients[0])


def log_loss(error: Shares, sensitivity: Shares) -> tuple[float, Array]:
    """log(squared error * squared sensitivity) with the best scales of the windows, and its gradient.

    The loss is stationary in the scales, so they count as constants in the gradient (the envelope theorem). One window
    leaves nothing to scale.
    """
    (errors, error_gradient), (sensitivities, sensitivity_gradient) = error, sensitivity
    u = best_squares(errors, sensitivities)
    f, s = float(errors @ (1 / u)), float(sensitivities @ u)
    return np.log(f) + np.log(s), error_gradient(1 / u) / f + sensitivity_gradient(u) / s
