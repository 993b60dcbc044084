"""Fits buffered linear Toeplitz strategies: theta and omega of the least error at sensitivity 1.

The unknowns are `s_1 < s_hat_1 < s_2 < ... < s_hat_d < 1`, the interlaced complements of theta and of the inverse's
theta_hat. Every such sequence gives omega > 0, a non-negative decreasing first column and a stable inverse that does
not oscillate, and every such strategy has one; so with log s as cumulated softplus there are no constraints to break.

References: McMahan and Pillutla (2025) for the parametrisation by theta and theta_hat.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import linalg, optimize, signal, special

from dpkit.factorization import blt_forms
from dpkit.factorization.base import Strategy
from dpkit.factorization.blt import BufferedLinearToeplitz, short_inverse_bands
from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.row_scales import Shares, Steps, best_squares, by_step, log_loss, window_starts
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.toeplitz_solver import check_scalable, seen_noise
from dpkit.factorization.values import Array
from dpkit.factorization.window_scaled import WindowScaled
from dpkit.factorization.workload import Workload
from dpkit.numerics.filtered_noise import variances, variances_gradient

# From (s, s_hat) to the squared error by windows, and from weights to its gradients in s and s_hat.
SquaredError = Callable[[Array, Array], tuple[Array, blt_forms.PairGradient]]

# A step in log s is softplus(u): from 2e-9, a buffer that does nothing, to 40, beyond any number of iterations, or
# less where so many steps of 40 would underflow.
_LEAST_STEP, _LARGEST_STEP, _LARGEST_LOG = -20.0, 40.0, 700.0
_SCOUTING, _FINISHING, _FINALISTS = 40, 1_000, 3
_REPORT_EVERY, _DENSE = 10, 1_000
_GRADIENT_TOLERANCE = 1e-5
# A buffer costs memory of the model's size; one that lowers the error by less than this is left out.
_WORTH_A_BUFFER = 1e-8


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A strategy, its objective, and the largest slope of the log loss at it (infinite where a search was cut off)."""

    strategy: BufferedLinearToeplitz | WindowScaled
    error: float
    slope: float
    message: str


def solve(
    family: BufferedLinearToeplitz,
    workload: Workload,
    schema: ParticipationSchema,
    objective: str,
    callback: Callable[[Progress], object] | None,
    *,
    scaled: bool,
) -> Solution:
    """The best strategy found with at most `num_buffers` buffers; see `optimize`.

    Fits 1, 2, ..., num_buffers buffers in turn, each from several starts, some of them the last fit and one more
    buffer; the best of all is the result. So more buffers are never worse, and there are fewer where more do not help.
    With scales the optimum without them is one more start, and so never better.
    """
    loss, search = LogLoss(workload, schema, objective, scaled=scaled), Search(callback)
    unscaled = LogLoss(workload, schema, objective, scaled=False)

    def candidate(x: Array, slope: float, message: str) -> Candidate:
        strategy = loss.strategy(x)
        return Candidate(strategy, getattr(strategy, objective)(workload, schema), slope, message)

    given, x = _given(family), None
    candidates: list[Candidate] = []
    try:
        for d in range(1, family.num_buffers + 1):
            starts = [*_starts(d, schema, x), *([given] if given is not None and len(given) == 2 * d else [])]
            if scaled:
                starts.append(complements(search.fit(unscaled, starts).x))
            result = search.fit(loss, starts)
            x = complements(result.x)
            slope = _projected_gradient(result)
            flat = "no slope left" if slope <= _GRADIENT_TOLERANCE else f"cut short ({result.message})"
            candidates.append(candidate(x, slope, f"{flat}: the log loss changes by {slope:.1e} per unit"))
    except (KeyboardInterrupt, Stopped) as reason:
        message = "stopped by the callback" if isinstance(reason, Stopped) else "interrupted"
        candidates.append(candidate(search.best_x, math.inf, f"{message}; optimize the result to go on"))
    best = candidates[0]
    for other in candidates[1:]:
        if other.error < best.error * (1 - _WORTH_A_BUFFER):
            best = other
    cut_off = math.isinf(candidates[-1].slope)
    converged = not cut_off and best.slope <= _GRADIENT_TOLERANCE
    _verify(best.strategy, workload, schema)
    return Solution.of(
        best.strategy,
        workload,
        schema,
        iterations=search.iterations,
        seconds=time.perf_counter() - search.began,
        converged=converged,
        message=candidates[-1].message if cut_off else best.message,
    )


class Stopped(Exception):
    """The callback asked to stop."""


class LogLoss:
    """log(squared sensitivity * squared error), with or without scales, and its gradient in unconstrained u (2 d,)."""

    def __init__(self, workload: Workload, schema: ParticipationSchema, objective: str, *, scaled: bool):
        self.schema, self.scaled = schema, scaled
        self.starts = window_starts(schema, scaled=scaled)
        self.squared_error = _squared_error(workload, schema.iterations, objective, self.starts)

    def __call__(self, u: Array) -> tuple[float, Array]:
        x = complements(u)
        value, by_x = log_loss(*self._shares(x))
        # log x_m = - sum over l >= m of softplus(u_l)
        return float(value), -np.cumsum(by_x * x) * special.expit(u)

    def strategy(self, x: Array) -> BufferedLinearToeplitz | WindowScaled:
        """That of the complements x, with the best scales if it may have any."""
        strategy = strategy_of(x)
        if not self.scaled:
            return strategy
        (errors, _), (sensitivities, _) = self._shares(x)
        return WindowScaled(strategy, self.schema.min_sep, np.sqrt(best_squares(errors, sensitivities)))

    def _shares(self, x: Array) -> tuple[Shares, Shares]:
        """Those of the squared error and of the squared sensitivity, with gradients in x."""
        s, s_hat = x[::2], x[1::2]
        omega, schema = blt_forms.partial_fractions(s, s_hat), self.schema
        errors, error_gradient = self.squared_error(s, s_hat)
        sensitivities, sensitivity_gradient = blt_forms.squared_sensitivity(
            s, omega, schema.iterations, schema.min_sep, schema.max_participations
        )

        def by_error(weights: Array) -> Array:
            return np.column_stack(error_gradient(weights)).ravel()

        def by_sensitivity(weights: Array) -> Array:
            by_s, by_omega = sensitivity_gradient(np.repeat(weights, len(sensitivities) // len(weights)))
            through_s, by_s_hat = blt_forms.partial_fractions_gradient(s, s_hat, by_omega)
            return np.column_stack([by_s + through_s, by_s_hat]).ravel()

        return (errors, by_error), (sensitivities.reshape(len(self.starts), -1).sum(axis=1), by_sensitivity)


def complements(u: Array) -> Array:
    """(s_1, s_hat_1, ..., s_d, s_hat_d), increasing, of the unconstrained u."""
    return np.exp(-np.cumsum(np.logaddexp(0, u)[::-1])[::-1])


def unconstrained(x: Array) -> Array:
    """The inverse of `complements`, cut to the bounds of the search."""
    steps = np.maximum(np.diff(np.append(np.log(x), 0.0)), 1e-12)
    return np.clip(steps + np.log(-np.expm1(-steps)), *_bounds(len(x)))


def _bounds(size: int) -> tuple[float, float]:
    return _LEAST_STEP, min(_LARGEST_STEP, _LARGEST_LOG / size)


def strategy_of(x: Array) -> BufferedLinearToeplitz:
    """The strategy in float64 theta and omega; its own errors and sensitivity are those of what was rounded."""
    s, s_hat = x[::2], x[1::2]
    # Rounding can make decays equal, or equal to 1; merged and below 1 they are as good.
    theta, where = np.unique(np.minimum(1 - s, 1 - 2.0**-53), return_inverse=True)
    omega = np.zeros(len(theta))
    np.add.at(omega, where, np.maximum(blt_forms.partial_fractions(s, s_hat), 0.0))
    return BufferedLinearToeplitz(theta=theta[::-1], omega=omega[::-1])


def _given(family: BufferedLinearToeplitz) -> Array | None:
    """The complements of a strategy to start from, None for a family without parameters."""
    if family.theta is None or family.omega is None:
        return None
    inverse = family.inverse()
    if np.min(family.omega) < 0 or inverse.theta is None or np.min(inverse.theta) <= 0:
        raise ValueError(
            f"a strategy to start from must have omega >= 0 and sum(omega / theta) < 1, got {family}; to optimize "
            "without a start give num_buffers alone"
        )
    return np.sort(1 - np.concatenate([family.theta[family.omega > 0], inverse.theta]))


def _starts(num_buffers: int, schema: ParticipationSchema, previous: Array | None) -> Iterator[Array]:
    """Complements to start from: geometric ones, and `previous`, of one buffer less, with a pair in each of its gaps.

    The best rational approximations of the square root on [1 / horizon, 1], Zolotarev's, have nearly geometric
    interlaced poles and zeros; the horizon is the run, or what there is of it for each participation.
    """
    for horizon in {schema.iterations, -(-schema.iterations // schema.max_participations)}:
        yield np.geomspace(0.5 / max(horizon, 2), 0.5, 2 * num_buffers)
    if previous is not None:
        edges = np.log(np.concatenate([[previous[0] / 100], previous, [1.0]]))
        for gap, (low, high) in enumerate(itertools.pairwise(edges)):
            yield np.exp(np.insert(edges[1:-1], gap, [low + (high - low) / 3, high - (high - low) / 3]))


class Search:
    """Descents, counted; knows the best point of all of them, also when one is cut off."""

    def __init__(self, callback: Callable[[Progress], object] | None):
        self.began = time.perf_counter()
        self.iterations = 0
        self.best_x, self._best_value = np.array([0.25, 0.5]), math.inf
        self._callback = callback

    def fit(self, loss: LogLoss, starts: list[Array]) -> optimize.OptimizeResult:
        """The best local minimum: a few steps from every start, then to the end from the best of them."""
        scouts = [self._descend(loss, unconstrained(x), _SCOUTING) for x in starts]
        finalists = sorted(scouts, key=lambda result: result.fun)[:_FINALISTS]
        return min((self._descend(loss, r.x, _FINISHING) for r in finalists), key=lambda result: result.fun)

    def _descend(self, loss: LogLoss, u: Array, steps: int) -> optimize.OptimizeResult:
        options: Any = {"maxcor": 30, "ftol": 1e-14, "gtol": 1e-9, "maxiter": steps, "maxfun": 2 * steps + 20}
        bounds = [_bounds(len(u))] * len(u)
        return optimize.minimize(
            loss, u, jac=True, method="L-BFGS-B", bounds=bounds, callback=self._step, options=options
        )

    def _step(self, intermediate_result: optimize.OptimizeResult) -> None:
        self.iterations += 1
        if intermediate_result.fun < self._best_value:
            self.best_x, self._best_value = complements(intermediate_result.x), intermediate_result.fun
        if self._callback and self.iterations % _REPORT_EVERY == 0:
            error = math.exp(self._best_value / 2)
            if self._callback(Progress(self.iterations, error, None, time.perf_counter() - self.began)):
                raise Stopped


def _projected_gradient(result: optimize.OptimizeResult) -> float:
    """The largest slope of the log loss in a direction that the bounds leave open."""
    return float(np.max(np.abs(result.x - np.clip(result.x - result.jac, *_bounds(len(result.x))))))


def _verify(strategy: Strategy, workload: Workload, schema: ParticipationSchema) -> None:
    """For short runs, checks sensitivity and errors against dense matrices.

    Raises:
        RuntimeError: they differ.
    """
    n = schema.iterations
    if n > _DENSE:
        return
    C = strategy.matrix(n)
    worst = C[:, : schema.max_participations * schema.min_sep : schema.min_sep]
    sensitivity = float(np.linalg.norm(np.sum(worst, axis=1)))
    errors = np.linalg.norm(workload.apply(linalg.solve_triangular(C, np.eye(n), lower=True)), axis=1)
    rmse = sensitivity * float(np.sqrt(np.mean(errors**2)))
    if not (
        math.isclose(sensitivity, strategy.sensitivity(schema), rel_tol=1e-9)
        and math.isclose(rmse, strategy.rmse(workload, schema), rel_tol=1e-7)
    ):
        raise RuntimeError(f"{strategy} has another sensitivity or error than its dense matrix; please report this")


def _squared_error(workload: Workload, n: int, objective: str, starts: Steps) -> SquaredError:
    if (sgd := blt_forms.constant_sgd(workload, n)) is not None:
        return _sgd_error(sgd, n, objective, starts)
    if (column := workload.toeplitz(n)) is not None:
        return _toeplitz_error(column, objective, starts)
    if (bands := short_inverse_bands(workload, n)) is not None:
        check_scalable(objective, starts)
        return _recursive_error(bands, objective, starts)
    raise ValueError(
        "workload must be Toeplitz, or its inverse have at most 8 bands, for a buffered linear Toeplitz strategy, got "
        f"{workload}; use Banded or Dense"
    )


def _sgd_error(sgd: tuple[float, float, float], n: int, objective: str, starts: Steps) -> SquaredError:
    """Of constant learning rates, at a cost that grows with log(n)."""
    errors = blt_forms.SquaredErrors(sgd, n, starts)
    v = errors.points[:, None]

    def squared_error(s: Array, s_hat: Array) -> tuple[Array, blt_forms.PairGradient]:
        parts, by_log = errors(np.prod((v + s) / (v + s_hat), axis=1), objective)

        def gradient(weights: Array) -> tuple[Array, Array]:
            g = by_log(weights)
            return (g @ (1 / (v + s))).imag, -(g @ (1 / (v + s_hat))).imag

        return parts, gradient

    return squared_error


def _toeplitz_error(column: Array, objective: str, starts: Steps) -> SquaredError:
    """Filters the first column of A (n,) by C^-1 = I + sum_i omega_hat_i L(theta_hat_i): O(n d)."""
    n = len(column)

    def squared_error(s: Array, s_hat: Array) -> tuple[Array, blt_forms.PairGradient]:
        omega_hat = blt_forms.partial_fractions(s_hat, s)
        filtered = [_one_pole(column, p) for p in s_hat]
        y = column + sum(o * f for o, f in zip(omega_hat, filtered, strict=True))

        def gradient(weights: Array) -> tuple[Array, Array]:
            weighted = seen_noise(by_step(weights, starts, n), objective) * y
            by_omega_hat = np.array([2 * weighted @ f for f in filtered])
            slopes = [-2 * weighted @ _one_pole(f, p) for f, p in zip(filtered, s_hat, strict=True)]
            through_poles, by_s = blt_forms.partial_fractions_gradient(s_hat, s, by_omega_hat)
            return by_s, np.array(slopes) * omega_hat + through_poles

        return np.add.reduceat(seen_noise(y**2, objective), starts), gradient

    return squared_error


def _recursive_error(bands: Array, objective: str, starts: Steps) -> SquaredError:
    """The variances of A C^-1 z through the recursion of A^-1, for workloads that are not Toeplitz: O(n (d + q)^2)."""
    n = len(bands)

    def squared_error(s: Array, s_hat: Array) -> tuple[Array, blt_forms.PairGradient]:
        omega_hat = blt_forms.partial_fractions(s_hat, s)
        errors, covariances = variances(bands, 1 - s_hat, omega_hat, np.ones(n))
        rows = np.full(n, 1 / n) if objective == "rmse" else np.eye(1, n, int(np.argmax(errors)))[0]
        by_decay, by_omega_hat, by_noise = variances_gradient(bands, 1 - s_hat, omega_hat, covariances, rows)

        def gradient(weights: Array) -> tuple[Array, Array]:
            if len(weights) == 1:
                by_decay_now, by_omega_hat_now = weights * by_decay, weights * by_omega_hat
            else:
                _, states = variances(bands, 1 - s_hat, omega_hat, by_step(weights, starts, n))
                by_decay_now, by_omega_hat_now, _ = variances_gradient(bands, 1 - s_hat, omega_hat, states, rows)
            through_poles, by_s = blt_forms.partial_fractions_gradient(s_hat, s, by_omega_hat_now)
            return by_s, through_poles - by_decay_now

        return np.add.reduceat(by_noise, starts), gradient

    return squared_error


def _one_pole(column: Array, complement: float) -> Array:
    """L(1 - complement) @ column: y_t = sum over r < t of (1 - complement)^(t - 1 - r) column_r."""
    return np.asarray(signal.lfilter([0.0, 1.0], [1.0, complement - 1], column))
