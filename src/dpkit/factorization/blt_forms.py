"""Sensitivity and errors of buffered linear Toeplitz matrices, each with its gradient, for any number of iterations.

A matrix C with first column c_0 = 1, c_t = sum_j omega_j theta_j^(t-1) and its inverse, which has the same form with
theta_hat and omega_hat, are written in the complements s = 1 - theta and s_hat = 1 - theta_hat. The generating function
of c in 1 / z is 1 + sum_j omega_j / (z - theta_j), with poles theta and zeros theta_hat.

References: Dvijotham, McMahan, Pillutla, Steinke and Thakurta (2024) for the matrices and their inverse; McMahan, Xu
and Zhang (2024) for several participations; McMahan and Pillutla (2025) for how the two sets of parameters belong.
"""

from collections.abc import Callable

import numpy as np
from scipy import optimize

from dpkit.factorization.row_scales import Steps
from dpkit.factorization.values import Array
from dpkit.factorization.workload import MomentumSgd, Workload
from dpkit.numerics.contour_sums import Complex, StepSamples
from dpkit.numerics.geometric_sums import geometric_sum, product_complement

# From weights to the gradients, in two sets of parameters, of the weighted sum of some parts.
PairGradient = Callable[[Array], tuple[Array, Array]]

# Keeps log(theta) finite at theta = 0: powers of 2^-53 do not show beside c_0 = 1.
_LARGEST = 1 - 2.0**-53


def partial_fractions(poles: Array, zeros: Array) -> Array:
    """The coefficients (m,) of 1 / (poles_i - x) in `prod_j (zeros_j - x) / prod_i (poles_i - x)`, poles (m,) distinct.

    `a_i = prod_j (zeros_j - poles_i) / prod_{k != i} (poles_k - poles_i)`.
    """
    return np.prod(zeros - poles[:, None], axis=1) / np.prod(_differences(poles), axis=1)


def partial_fractions_gradient(poles: Array, zeros: Array, by_coefficient: Array) -> tuple[Array, Array]:
    """Gradients in (poles, zeros) of a function whose gradient in the coefficients is `by_coefficient` (m,)."""
    weighted = (by_coefficient * partial_fractions(poles, zeros))[:, None]
    to_zeros = weighted / (zeros - poles[:, None])
    to_poles = weighted / _differences(poles)
    np.fill_diagonal(to_poles, 0.0)
    return to_poles.sum(axis=1) - to_poles.sum(axis=0) - to_zeros.sum(axis=1), to_zeros.sum(axis=0)


def _differences(poles: Array) -> Array:
    """poles_k - poles_i at [i, k], and 1 on the diagonal."""
    differences = poles - poles[:, None]
    np.fill_diagonal(differences, 1.0)
    return differences


def squared_sensitivity(
    s: Array, omega: Array, iterations: int, min_sep: int, participations: int
) -> tuple[Array, PairGradient]:
    """Squared norm of the sum of columns 0, b, ..., (k - 1) b of C, by parts: rows from one participation to the next.

    From one step after participation m to the next participation the summed column is a sum of d geometric sequences
    that start from `v[m] = omega * (1 + theta^b + ... + theta^(m b))`. Cost O(k d^2).

    Returns:
        The parts (k,), and the gradients in s (d,) and omega (d,) of `weights @ parts`, from the weights (k,).
    """
    n, b, k = iterations, min_sep, participations
    log_theta = np.log1p(-np.minimum(s, _LARGEST))
    steps = b * np.arange(1, k)[:, None]
    # What the buffers hold when participation m arrives: the sum over l = 1..m of theta^(l b - 1).
    held, held_slope = np.zeros((2, k, len(s)))
    powers = np.exp((steps - 1) * log_theta)
    held[1:] = np.cumsum(powers, axis=0)
    held_slope[1:] = np.cumsum((1 - steps) * powers, axis=0) / np.exp(log_theta)
    starts, starts_slope = 1 + (1 - s) * held, (1 - s) * held_slope - held
    v = omega * starts
    arrivals = 1 + held @ omega

    pairs = product_complement(s[:, None], s)
    inner, inner_slope = geometric_sum(b - 1, pairs)
    last, last_slope = geometric_sum(n - (k - 1) * b - 1, pairs)
    by_v = np.concatenate([v[:-1] @ inner, v[-1:] @ last])

    def gradient(weights: Array) -> tuple[Array, Array]:
        w = weights[:, None]
        by_pair = inner_slope * (v[:-1].T @ (w[:-1] * v[:-1])) + last_slope * np.outer(w[-1] * v[-1], v[-1])
        by_s = by_pair @ (1 - s) + omega * (np.sum(w * by_v * starts_slope, axis=0) + weights * arrivals @ held_slope)
        by_omega = np.sum(w * by_v * starts, axis=0) + weights * arrivals @ held
        return 2 * by_s, 2 * by_omega

    return arrivals**2 + np.sum(by_v * v, axis=1), gradient


def constant_sgd(workload: Workload, iterations: int) -> tuple[float, float, float] | None:
    """(rate, 1 - alpha, 1 - beta) if A has the generating function `rate / ((1 - alpha x) (1 - beta x))`, else None."""
    if not isinstance(workload, MomentumSgd):
        return None
    rates = workload.learning_rates if workload.learning_rates.ndim == 0 else workload._rates(iterations)
    rate = float(rates.flat[0])
    return (rate, workload.weight_decay * rate, 1 - workload.momentum) if np.all(rates == rate) else None


class SquaredErrors:
    """Mean ("rmse") or largest ("max_error") squared row norm of A C^-1, by parts: columns from one of `starts` (m,) to
    the next.

    A is that of `constant_sgd`, and C^-1 Toeplitz with a generating function in 1 / w whose poles all are on [0, 1).
    With y the first column of A C^-1, the squared row norms are the cumulated y_t^2, so the last row is the largest;
    and columns from `start` on hold what a run of n - start steps does. Cost O((m + log n) d), to about 1e-13.

    `points` (P,) are w - 1 where the generating function of C^-1 is asked for.
    """

    def __init__(self, sgd: tuple[float, float, float], iterations: int, starts: Steps):
        self._iterations = iterations
        # From the last column to the first the parts end at these steps of y.
        self._lengths = np.diff(starts, append=iterations)[::-1]
        ends = np.cumsum(self._lengths)
        self._samples = StepSamples(ends.tolist())
        self._counts = np.diff(self._samples.firsts, append=len(self._samples.steps))
        self._left = np.repeat(ends, self._counts) - self._samples.steps
        self.points = self._samples.points
        rate, slow, fast = sgd
        w = 1 + self.points
        self._workload = rate * (w / (self.points + slow)) * (w / (self.points + fast))

    def __call__(self, inverse: Complex, objective: str) -> tuple[Array, Callable[[Array], Complex]]:
        """The parts (m,), from the generating function of C^-1 at the points (P,).

        With them, from weights (m,) to g (P,): `weights @ parts` changes by Im(g @ change of log(inverse)).
        """
        transform = self._workload * inverse
        y = self._samples.values(transform)
        squares = self._samples.weights * y**2
        energies = np.add.reduceat(squares, self._samples.firsts)
        parts = energies
        if objective == "rmse":
            before = np.cumsum(energies) - energies
            inside = np.add.reduceat(self._left * squares, self._samples.firsts)
            parts = (inside + self._lengths * before) / self._iterations

        def gradient(weights: Array) -> Complex:
            by_square = np.repeat(weights[::-1], self._counts)
            if objective == "rmse":
                seen = weights[::-1] * self._lengths
                later = np.sum(seen) - np.cumsum(seen)
                by_square = (by_square * self._left + np.repeat(later, self._counts)) / self._iterations
            return self._samples.gradient(2 * by_square * self._samples.weights * y) * transform

        return parts[::-1], gradient


def inverse_parameters(s: Array, omega: Array) -> tuple[Array, Array]:
    """(s_hat, omega_hat) of C^-1, in ascending order of s_hat, for distinct s and omega all positive or all negative.

    The theta_hat are the eigenvalues of `diag(theta) - omega 1^T`: the roots of their secular equation
    `1 + sum_j omega_j / (s_j - s_hat) = 0`, which interlace the s. Each comes to relative accuracy in its distance from
    the nearest s, where a general eigenvalue solver would lose the small ones.
    """
    if len(omega) and omega[0] < 0:
        # Mirrored at s = 0 the equation is that of positive omega.
        s_hat, omega_hat = inverse_parameters(-s, -omega)
        return -s_hat[::-1], -omega_hat[::-1]
    order = np.argsort(s)
    s, omega = s[order], omega[order]
    s_hat, omega_hat = np.empty((2, len(s)))
    for i in range(len(s)):
        near, low, high = _bracket(s, omega, i)
        distances = s - s[near]
        others = distances != 0

        def secular(offset: float, near=near, distances=distances[others], weights=omega[others]) -> float:
            return offset * (1 + np.sum(weights / (distances - offset))) - omega[near]

        offset = optimize.brentq(secular, low, high, xtol=1e-300, rtol=4 * np.finfo(np.float64).eps, maxiter=5_000)
        s_hat[i] = s[near] + offset
        # The residue of 1 / C at its pole: a sum of positive terms.
        omega_hat[i] = -1 / np.sum(omega / (distances - offset) / (distances - offset))
    return s_hat, omega_hat


def _bracket(s: Array, omega: Array, i: int) -> tuple[int, float, float]:
    """(index of the s nearest to root i, least and greatest offset of the root from it), with slack at the far end."""
    if i == len(s) - 1:
        return i, 0.0, 2 * float(np.sum(omega))
    half = (s[i + 1] - s[i]) / 2
    if 1 + np.sum(omega / (s - s[i] - half)) >= 0:
        return i, 0.0, 1.001 * half
    return i + 1, -1.001 * half, 0.0
