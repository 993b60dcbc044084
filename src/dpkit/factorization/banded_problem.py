"""The error of a banded strategy as a function of free variables, and where and how to begin to minimise it."""

import dataclasses
import math

import numpy as np

from dpkit.factorization.column_norms import NormSet
from dpkit.factorization.lower_bounds import Cut
from dpkit.factorization.quasi_newton import Point, descend
from dpkit.factorization.values import Array
from dpkit.numerics import autoregression as ar

_LEAST_PRIOR = 0.01


@dataclasses.dataclass(frozen=True)
class Trial(Point):
    """A trial x: `value` is log F, F the objective, and `gradient` is that in x; C and dC = dF/dC are rows of bands.

    `weights` (n,) is the gradient of F with respect to `variances`, the squared errors of the queries.
    """

    C: Array
    dC: Array
    variances: Array
    weights: Array

    def cut(self) -> Cut:
        """A bound for the mean of the variances in the weights that they have here. dC is the lower band of 2 C G."""
        total = np.sum(self.weights)
        G = ar.symmetric_band(self.C, self.dC / 2)
        return Cut(float(self.weights @ self.variances / total), G / total)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Minimise F(C) = (sum_t prior_t Var_t^order)^(1/order), Var_t the squared norm of row t of A C^-1, sum(prior) = 1.

    Order 1 is the mean squared error, the prior uniform. A larger order stands in, smoothly, for the maximum, and where
    Var_t is the same at all t of positive prior, and smaller elsewhere, F is the maximum itself.
    """

    inverse: Array
    num_bands: int
    norms: NormSet
    prior: Array
    order: float = 1.0
    fixed_norms: bool = False

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.inverse), self.num_bands

    def with_prior(self, weights: Array) -> "Problem":
        """The same with a prior (n,) in proportion to the weights but nowhere 0, which it then would be for ever."""
        prior = np.maximum(weights / np.sum(weights), _LEAST_PRIOR / len(weights))
        return dataclasses.replace(self, prior=prior / np.sum(prior))

    def from_rows(self, rows: Array) -> Array:
        """The x of a member of the family."""
        P = ar.columns_from_rows(rows)
        return self.from_columns(P, np.sum(P**2, axis=1))

    def from_columns(self, P: Array, squared_norms: Array) -> Array:
        """The x of columns along those of P (n, num_bands), cut off at the end of the run, with about these norms."""
        n, b = self._shape
        Q = np.where(np.arange(n)[:, None] + np.arange(b) < n, P, 0.0)
        return np.append(Q / np.linalg.norm(Q, axis=1, keepdims=True), self.norms.start(squared_norms))

    def square_root(self) -> Array:
        """The x of the first bands of the square root of the prefix sums, with norms about equal."""
        n, b = self._shape
        j = np.arange(1, b)
        return self.from_columns(np.append(1.0, np.cumprod((2 * j - 1) / (2 * j))), np.ones(n))

    def evaluate(self, x: Array) -> Trial | None:
        """The trial at x, or None where it is not finite (a recursion that diverges)."""
        n, b = self._shape
        P, v = x[: n * b].reshape(n, b), x[n * b :]
        lengths = np.sqrt(np.sum(P**2, axis=1, keepdims=True))
        Q, scale = P / lengths, np.sqrt(self.norms.squared_norms(v))[:, None]
        C = ar.rows_from_columns(Q * scale)
        with np.errstate(all="ignore"):
            W = ar.band_product(C, self.inverse)
            S = ar.windowed_covariance(W)
            F, weights = self._aggregate(np.maximum(S[:, 0], 0.0))
            dC = ar.band_product_adjoint(ar.windowed_covariance_adjoint(W, S, weights), self.inverse, b)
        # No variance can be below that of the last innovation, unless the recursion has lost all digits.
        if not (math.isfinite(F) and np.all(np.isfinite(dC)) and np.all(S[:, 0] * W[:, 0] ** 2 > 0.999)):
            return None
        g = ar.columns_from_rows(dC)
        radial = np.sum(g * Q, axis=1, keepdims=True)
        dP = (g - radial * Q) * scale / lengths
        dv = self.norms.pullback(v, np.ravel(radial / (2 * scale)))
        gradient = np.concatenate([dP.ravel(), 0.0 * dv if self.fixed_norms else dv]) / F
        return Trial(x, math.log(F), gradient, C, dC, S[:, 0], weights)

    def _aggregate(self, variances: Array) -> tuple[float, Array]:
        """F and its gradient (n,) with respect to the variances."""
        top = np.max(variances)
        F = float(top * (self.prior @ (variances / top) ** self.order) ** (1 / self.order))
        return F, self.prior * (variances / F) ** (self.order - 1)

    def loss(self, trial: Trial) -> float:
        """What the smooth objective stands for: the mean of the variances at order 1, their maximum above."""
        return float(np.mean(trial.variances) if self.order == 1 else np.max(trial.variances))


def toeplitz_start(problem: Problem) -> Array:
    """The best x with equal norms whose columns are alike, but for their ends: num_bands unknowns, some ten steps."""
    n, b = len(problem.inverse), problem.num_bands
    start, fits = problem.square_root(), np.arange(n)[:, None] + np.arange(b) < n
    norms = start[n * b :]

    def tied(column: Array) -> Trial | None:
        trial = problem.evaluate(np.append(np.where(fits, column, 0.0), norms))
        gradient = trial and np.sum(trial.gradient[: n * b].reshape(n, b), axis=0)
        return trial and dataclasses.replace(trial, x=column, gradient=gradient)

    first = best = tied(start[:b])
    if first is None or best is None:
        raise ValueError("workload has errors beyond floating point for these iterations; rescale or shorten it")
    for point in descend(tied, first, np.copy):
        before, best = best, point
        if before.value - best.value < 1e-6:
            break
    return problem.from_columns(best.x, np.ones(n))
