"""The best banded Toeplitz strategy, with or without scales for its rows, by L-BFGS on the log of the loss."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import fft
from scipy import optimize

from dpkit.factorization.banded_toeplitz import BandedToeplitz
from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.row_scales import Shares, Steps, best_squares, by_step, log_loss, window_starts
from dpkit.factorization.sensitivity import shifted_sum, toeplitz_majorant
from dpkit.factorization.series import divide
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.square_roots import binomial_column
from dpkit.factorization.toeplitz import ToeplitzStrategy, num_bands, toeplitz_rows
from dpkit.factorization.values import Array
from dpkit.factorization.window_scaled import WindowScaled
from dpkit.factorization.workload import Workload
from dpkit.numerics import autoregression as ar

_MAX_STEPS = 2000
_OPTIONS: Any = {"maxcor": 20, "ftol": 1e-15, "gtol": 1e-9, "maxiter": _MAX_STEPS, "maxfun": 2 * _MAX_STEPS}
# The slope of the log loss, at c_0 = 1, in a feasible direction of length 1 (sum of moduli) that counts as converged:
# the loss is then typically within 1e-6 of its limit.
_FLAT = 1e-4
# Variables are this many times the coefficients, so that the first step of the search is a small one.
_SCALE = 100
# Above the log of any loss, yet finite: the line search interpolates, and gives up after an infinity.
_OUT_OF_REACH = 1e3

LossAndGradient = tuple[float, Array]


def solve(
    family: BandedToeplitz,
    workload: Workload,
    schema: ParticipationSchema,
    objective: str,
    callback: Callable[[Progress], object] | None,
    *,
    scaled: bool,
) -> Solution:
    """The `Solution` for as many bands as `family` has, from its coefficients if it has any; see `optimize`.

    First with only as many bands as leave columns of one pattern without overlap, where any coefficients have an exact
    sensitivity; from there, if more are wanted, among non-negative and non-increasing coefficients, where the closed
    form is exact. Scales join last, so that they can only improve on the optimum without them.
    """
    search, given, n = _Search(callback), family.coefficients, schema.iterations
    bands = min(family.num_bands, n)
    disjoint = bands if schema.max_participations == 1 else min(bands, schema.min_sep)
    c, slope = binomial_column(disjoint, 0.5) if given is None else given[:bands] / given[0], np.inf
    stages = [window_starts(schema, scaled=s) for s in ([False, True] if scaled else [False])]
    errors = [squared_error(workload, n, objective, starts) for starts in stages]
    for starts, error in zip(stages, errors, strict=True):
        if len(c) == disjoint and not search.stopped:
            loss = _loss(error, disjoint_sensitivity, schema, starts)
            c = search.unconstrained(loss, c)
            slope = np.max(np.abs(loss(c)[1]))
        if bands > disjoint and not search.stopped:
            loss = _loss(error, monotone_sensitivity, schema, starts)
            c = search.monotone(loss, toeplitz_majorant(np.concatenate([c, np.zeros(bands - len(c))])))
            # A feasible direction is a sum of staircases: c_0, ..., c_j moved by the same amount.
            slope = -np.min(np.cumsum(loss(c)[1]))
    converged = bool(slope <= _FLAT) and not search.stopped
    message = f"largest slope of the log loss {slope:.1e}" + ("" if converged else f"; {search.message}")
    strategy = BandedToeplitz(len(c), c)
    return Solution.of(
        best_scaled(strategy, workload, schema, objective) if scaled else strategy,
        workload,
        schema,
        iterations=search.steps,
        seconds=time.perf_counter() - search.start,
        converged=converged,
        message=message,
    )


def best_scaled(
    strategy: ToeplitzStrategy, workload: Workload, schema: ParticipationSchema, objective: str
) -> WindowScaled:
    """`strategy` with the best scale for every participation's window; their optimum is a closed form."""
    n, b, starts = schema.iterations, schema.min_sep, window_starts(schema, scaled=True)
    c = strategy.first_column(n)
    c = c[: num_bands(c)]
    errors, _ = squared_error(workload, n, objective, starts)(c)
    if schema.max_participations == 1 or len(c) <= b:
        sensitivities, _ = disjoint_sensitivity(c, schema, starts)
    else:
        sensitivities, _ = monotone_sensitivity(toeplitz_majorant(c), schema, starts)
    return WindowScaled(strategy, b, np.sqrt(best_squares(errors, sensitivities)))


class _Search:
    """Runs L-BFGS, counts its steps, reports them, and keeps the best point for when it is stopped."""

    def __init__(self, callback: Callable[[Progress], object] | None):
        self.start, self.steps, self.stopped, self.message = time.perf_counter(), 0, False, ""
        self._callback = callback

    def unconstrained(self, loss: Callable[[Array], LossAndGradient], c: Array) -> Array:
        """The minimum over c with c_0 = 1."""
        if len(c) == 1:
            return c

        def scaled(u: Array) -> LossAndGradient:
            value, gradient = loss(np.append(1.0, u / _SCALE))
            return value, gradient[1:] / _SCALE

        return np.append(1.0, self._minimise(scaled, c[1:] * _SCALE, lower=-np.inf) / _SCALE)

    def monotone(self, loss: Callable[[Array], LossAndGradient], c: Array) -> Array:
        """The minimum over non-negative, non-increasing c, in its differences c_j - c_{j+1} >= 0; then c_0 = 1."""

        def of_differences(u: Array) -> LossAndGradient:
            value, gradient = loss(np.cumsum(u[::-1])[::-1])
            return value, np.cumsum(gradient)

        c = np.cumsum(self._minimise(of_differences, np.append(-np.diff(c), c[-1]), lower=0.0)[::-1])[::-1]
        return c / c[0]

    def _minimise(self, objective: Callable[[Array], LossAndGradient], u: Array, lower: float) -> Array:
        best, bounds = [u], optimize.Bounds(lower, np.inf)  # pyright: ignore[reportArgumentType]

        def report(intermediate_result: optimize.OptimizeResult) -> None:
            best[0] = intermediate_result.x.copy()
            self.steps += 1
            error = float(np.exp(intermediate_result.fun / 2))
            if self._callback and self._callback(Progress(self.steps, error, None, time.perf_counter() - self.start)):
                self.stopped, self.message = True, "stopped by the callback; optimize the result to go on"
                raise StopIteration

        try:
            result = optimize.minimize(
                objective, u, jac=True, method="L-BFGS-B", bounds=bounds, callback=report, options=_OPTIONS
            )
        except KeyboardInterrupt:
            self.stopped, self.message = True, "interrupted; optimize the result to go on"
            return best[0]
        self.message = self.message or f"L-BFGS: {result.message}"
        return result.x


def squared_error(workload: Workload, n: int, objective: str, starts: Steps) -> Callable[[Array], Shares]:
    """Mean ("rmse") or largest ("max_error") squared row norm of A C^{-1}, as a function of c (p,).

    Its shares are those of the steps whose noise causes it, in windows that begin at `starts` (m,).

    Raises:
        ValueError: A is neither Toeplitz nor has a banded inverse, or its largest error is wanted in several windows
            and it is not Toeplitz.
    """
    if (column := workload.toeplitz(n)) is not None:
        return _toeplitz_error(column, objective, starts)
    inverse = workload.inverse_bands(n)
    if inverse is None:
        raise ValueError(f"workload must be Toeplitz or invertible to optimise a Toeplitz strategy, got {workload}")
    check_scalable(objective, starts)
    return _recursive_error(inverse, objective, starts)


def check_scalable(objective: str, starts: Steps) -> None:
    """`ValueError` if scales are wanted for the max error of a workload that is not Toeplitz."""
    if objective == "max_error" and len(starts) > 1:
        raise ValueError(
            "workload must be Toeplitz to scale windows for the max error: which query's is the largest may depend on "
            'the scales; use objective="rmse", or Banded'
        )


def _toeplitz_error(numerator: Array, objective: str, starts: Steps) -> Callable[[Array], Shares]:
    """O(n log p), from y = numerator / c as power series, the first column of A C^{-1}."""
    n = len(numerator)

    def error(c: Array) -> Shares:
        # A trial step may be so long that y grows exponentially; infinities and NaN are for the caller to reject.
        with np.errstate(over="ignore", invalid="ignore"):
            y = divide(numerator, c)
            shares = np.add.reduceat(seen_noise(y**2, objective), starts)

        def gradient(noise: Array) -> Array:
            weights = seen_noise(by_step(noise, starts, n), objective)
            adjoint = divide((weights * y)[::-1], c)[::-1]
            return -2 * _correlation(adjoint, y, len(c))

        return shares, gradient

    return error


def seen_noise(values: Array, objective: str) -> Array:
    """The mean or largest squared error is `seen_noise(y^2) @ v = y^2 @ seen_noise(v)`, (n,) each, v the variances.

    Query t's is sum_r y_r^2 v_{t-r}, A C^{-1} having the first column y; that of the last query is the largest.
    """
    return (np.cumsum(values) / len(values) if objective == "rmse" else values)[::-1]


def _recursive_error(inverse: Array, objective: str, starts: Steps) -> Callable[[Array], Shares]:
    """O(n (p + q)^2): the variances of W x = z, W = C A^{-1}, and the gradient of their mean or largest in W."""
    n = len(inverse)

    def error(c: Array) -> Shares:
        with np.errstate(all="ignore"):
            W = ar.band_product(toeplitz_rows(c, n), inverse)
            S = ar.windowed_covariance(W)
            worst = np.argmax(S[:, 0]) if objective == "max_error" else None
            weights = np.full(n, 1 / n) if worst is None else np.eye(1, n, int(worst))[0]
            by_W = ar.windowed_covariance_adjoint(W, S, weights)
            # The share of step t's noise, of variance v_t, is linear in v_t; row t of W scales with v_t^(-1/2).
            shares = -np.sum(by_W * W, axis=1) / 2
        # No variance can be below that of the last innovation, unless the recursion has lost all digits.
        if not np.all(S[:, 0] * W[:, 0] ** 2 > 0.999):
            shares = np.full(n, np.inf)

        def gradient(noise: Array) -> Array:
            if len(noise) == 1:
                scaled = by_W * noise
            else:
                scales = 1 / np.sqrt(by_step(noise, starts, n))[:, None]
                V = W * scales
                scaled = ar.windowed_covariance_adjoint(V, ar.windowed_covariance(V), weights) * scales
            return np.sum(ar.band_product_adjoint(scaled, inverse, len(c)), axis=0)

        return np.add.reduceat(shares, starts), gradient

    return error


def disjoint_sensitivity(c: Array, schema: ParticipationSchema, starts: Steps) -> Shares:
    """Squared sensitivity where columns of one pattern share no row: the sum of their squared norms.

    Column s has entries c_0, ..., c_{n-1-s}; early columns are the longest, and so 0, b, 2b, ... the worst pattern.
    Its columns end before the next begins, so each lies in one window.
    """
    steps = schema.min_sep * np.arange(schema.max_participations)
    lengths = np.minimum(schema.iterations - steps, len(c))

    def gradient(weights: Array) -> Array:
        weights = np.repeat(weights, len(steps) // len(starts))
        # How many of the pattern's columns have an entry c_j.
        uses = np.cumsum(np.bincount(lengths, weights, minlength=len(c) + 1)[::-1])[::-1][1:]
        return 2 * uses * c

    return np.cumsum(c**2)[lengths - 1].reshape(len(starts), -1).sum(axis=1), gradient


def monotone_sensitivity(c: Array, schema: ParticipationSchema, starts: Steps) -> Shares:
    """Squared sensitivity for non-negative, non-increasing c."""
    n, b, k = schema.iterations, schema.min_sep, schema.max_participations
    summed = shifted_sum(np.concatenate([c, np.zeros(n - len(c))]), b, k)

    def gradient(weights: Array) -> Array:
        return 2 * shifted_sum((by_step(weights, starts, n) * summed)[::-1], b, k)[::-1][: len(c)]

    return np.add.reduceat(summed**2, starts), gradient


def _loss(
    error: Callable[[Array], Shares],
    sensitivity: Callable[[Array, ParticipationSchema, Steps], Shares],
    schema: ParticipationSchema,
    starts: Steps,
) -> Callable[[Array], LossAndGradient]:
    """The log loss as a function of c; out of reach where a trial step made the recursion overflow."""

    def loss(c: Array) -> LossAndGradient:
        errors, error_gradient = error(c)
        if np.all(np.isfinite(errors)):
            with np.errstate(over="ignore", invalid="ignore"):
                value, gradient = log_loss((errors, error_gradient), sensitivity(c, schema, starts))
            if np.all(np.isfinite(gradient)):
                return value, gradient
        return _OUT_OF_REACH, np.zeros_like(c)

    return loss


def _correlation(x: Array, y: Array, count: int) -> Array:
    """sum_t x_t y_{t - j} for j < count: blocks of x against as long a stretch of y before and beside them."""
    size = max(2048, 2 ** (2 * count - 1).bit_length())
    blocks = -(-len(x) // size)
    padded_x, padded_y = np.zeros(blocks * size), np.zeros((blocks + 1) * size)
    padded_x[: len(x)], padded_y[size : size + len(y)] = x, y
    product = np.zeros(size + 1, dtype=np.complex128)
    for start in range(0, blocks * size, size):
        behind = fft.rfft(padded_y[start : start + 2 * size])
        product += np.conj(fft.rfft(padded_x[start : start + size], 2 * size)) * behind
    # Entry d of the cyclic correlation is sum_i x_i (y of i + d - size); j = size - d.
    return fft.irfft(product, 2 * size)[size : size - count : -1]
