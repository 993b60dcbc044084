"""The banded strategy of least error: a quasi-Newton method in linear time, and a certificate of how good it is.

With A^-1 banded, W = C A^-1 is banded too, and the squared row norms of A C^-1 = W^-1 are the variances of an
autoregression (`dpkit.numerics.autoregression`). The unknowns are the columns of C, normalised, and what their norms
are made of (`NormSet`); every value of them is feasible, so nothing but the error is left to minimise.
"""

import collections
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
from scipy import linalg

from dpkit.factorization.banded import Banded, verify
from dpkit.factorization.column_norms import NormSet, UnitNorms, norm_set
from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.values import Array
from dpkit.factorization.workload import Workload
from dpkit.numerics import autoregression as ar

TOLERANCES = {"rmse": 1e-4, "max_error": 1e-3}
"""Certified relative gap, by objective, at which a search has converged."""
_MAX_ITERATIONS = 3_000
_HISTORY = 10
_CERTIFY_EVERY = 10
_STALLED_AFTER = 30
_REFRESH_AFTER = 50
_JOINT_ITERATIONS = 100
_NORM_SCALE = 20.0
_SMOOTH_ORDER = 16.0


@dataclasses.dataclass(frozen=True)
class Point:
    """A trial x: `value` is log F, F the objective, and `gradient` is that in x; C and dC = dF/dC are rows of bands."""

    x: Array
    value: float
    gradient: Array
    C: Array
    dC: Array
    variances: Array
    weights: Array


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What is proved at a point.

    Args:
        least: no member of the family has a mean (at order 1) or a maximum of the variances below this.
        gap: of the point, relative to its own mean or maximum.
        smooth: the same for the smooth objective, relative to the bound.
        diagonal: what `smooth` would be were all off-diagonal gradients zero.
    """

    least: float
    gap: float
    smooth: float
    diagonal: float


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

    def from_rows(self, rows: Array) -> Array:
        """The x of a member of the family."""
        P = ar.columns_from_rows(rows)
        squares = np.sum(P**2, axis=1)
        return np.append(P / np.sqrt(squares)[:, None], self.norms.start(squares))

    def evaluate(self, x: Array) -> Point | None:
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
        return Point(x, math.log(F), gradient, C, dC, S[:, 0], weights)

    def _aggregate(self, variances: Array) -> tuple[float, Array]:
        """F and its gradient (n,) with respect to the variances."""
        top = np.max(variances)
        F = float(top * (self.prior @ (variances / top) ** self.order) ** (1 / self.order))
        return F, self.prior * (variances / F) ** (self.order - 1)

    def certificate(self, point: Point) -> Certificate:
        """A lower bound on what any member of the family can reach, from convexity.

        With w = weights / sum(weights) on the simplex, f(X) = sum_t w_t Var_t = sum_t w_t (A X^-1 A^T)_tt is convex in
        X = C^T C and homogeneous of degree -1, so <G, X> = -f(X) for its gradient G, and for every feasible X'
            f(X') >= f(X) + <G, X' - X> = 2 f(X) + <G, X'>.
        X' has the same bands, a diagonal d' in the norm set, and |X'_ij| <= sqrt(d'_i d'_j) <= (d'_i + d'_j) / 2, as it
        is positive semidefinite. So with r_i = -G_ii + sum_{j != i} |G_ij|, where -G = X^-1 A^T diag(w) A X^-1 has no
        negative diagonal entry,
            -<G, X'> <= r.d' <= the maximum of r.d' over the norm set.
        Both the mean of Var_t and its maximum are at least f for the w they are used with. (For d = 1 this is the bound
        sum over i != j of |G_ij| (1 + |X_ij|), less what G_ij X_ij < 0 saves.) G on the band follows from the gradient
        with respect to C, which is the lower band of 2 C G.
        """
        G = ar.symmetric_band(point.C, point.dC / 2)
        total = float(np.sum(point.weights))
        diagonal = -G[:, 0]
        off = np.sum(np.abs(G[:, 1:]), axis=1)
        for j in range(1, self.num_bands):
            off[:-j] += np.abs(G[j:, j])
        F = math.exp(point.value)
        bound = self.norms.largest(diagonal + off)
        mean = float(point.weights @ point.variances)
        least = max(0.0, (2 * mean - bound) / total)
        gap = 1 - least / self.loss(point)
        return Certificate(least, gap, bound / F - 1, self.norms.largest(diagonal) / F - 1)

    def loss(self, point: Point) -> float:
        """What the smooth objective stands for: the mean of the variances at order 1, their maximum above."""
        return float(np.mean(point.variances) if self.order == 1 else np.max(point.variances))


def preconditioner(problem: Problem, point: Point) -> Callable[[Array], Array]:
    """An approximate inverse Hessian: exact for one row of C in the middle of the run, for the others the same, scaled.

    Q are the unit columns, C = Q D, B = A C^-1, and column j of E is the direction in which column s_j of Q moves on
    its sphere when its entry in row t does. To second order, dQ = sum_j h_j E_j e_(s_j)^T adds to the loss
        ||B dQ Q^-1||^2 + 2 <B, B dQ Q^-1 dQ Q^-1> + sum_j weight_j h_j^2 (1 - Q[t, s_j]^2),
    the last from the spheres' curvature, weight_j = -<dF/dC, C> / 2 over column s_j. Rows couple little, and those
    away from the ends are alike up to the weight, which spares the search more than half of its steps. Scaling with
    the root of the weight does better than with the weight itself.
    """
    if problem.order > 1:
        return np.copy  # The curvature is another one, dominated by the differences of the variances.
    n, b = len(problem.inverse), problem.num_bands
    P = point.x[: n * b].reshape(n, b)
    Q = P / np.sqrt(np.sum(P**2, axis=1, keepdims=True))
    weight = -np.sum(ar.columns_from_rows(point.dC * point.C), axis=1) / 2
    weight = np.maximum(weight, 1e-6 * np.max(weight))
    t = max(b - 1, n // 2)
    s = np.arange(t, t - b, -1)
    E = np.zeros((n, b))
    for j in range(b):
        E[s[j] : s[j] + b, j] = -Q[s[j], : n - s[j]] * Q[s[j], j]
    E[t] += 1
    W, rows = ar.band_product(point.C, problem.inverse), ar.rows_from_columns(Q)
    F = ar.band_solve(W, point.weights[:, None] * ar.band_solve(W, E), transposed=True)  # B^T diag(weights) B E
    inverse_gram = ar.window(ar.windowed_covariance(rows), t + 1, b)
    curvature = ar.band_solve(rows, F)[s].T * ar.band_solve(rows, E)[s]
    M = (E.T @ F) * inverse_gram + curvature + curvature.T + np.diag(weight[s] * (1 - Q[s, np.arange(b)] ** 2))
    values, vectors = linalg.eigh(M / weight[t])
    least = 0.01 * np.max(np.abs(values)) or 1.0  # all zero where unit columns of one entry leave no freedom
    inverse = (vectors / np.maximum(np.abs(values), least)) @ vectors.T
    scale = np.sqrt(np.max(weight) / weight)[:, None]

    def apply(gradient: Array) -> Array:
        rows = ar.rows_from_columns(gradient[: n * b].reshape(n, b))
        step = ar.columns_from_rows((rows @ inverse) * scale)
        return np.concatenate([step.ravel(), _NORM_SCALE * np.trace(inverse) / b * gradient[n * b :]])

    return apply


def descend(
    evaluate: Callable[[Array], Point | None], point: Point, precondition: Callable[[Array], Array]
) -> Iterator[Point]:
    """Limited-memory BFGS: yields points of ever lower value until no step lowers it any more.

    A trial that is not finite is rejected like one that is too long. Steps satisfy the weak Wolfe conditions.
    """
    steps: list[tuple[Array, Array, float]] = []
    values = collections.deque([math.inf], maxlen=_STALLED_AFTER)
    while np.any(point.gradient) and values[0] - point.value > 1e-14:
        values.append(point.value)
        new = _line_search(evaluate, point, _direction(point, steps, precondition))
        if new is None:
            if not steps:
                return
            steps = []
            continue
        s, y = new.x - point.x, new.gradient - point.gradient
        if (curvature := _dot(s, y)) > 0:
            steps = [*steps[-_HISTORY + 1 :], (s, y, 1 / curvature)]
        point = new
        yield point


def _direction(point: Point, steps: list[tuple[Array, Array, float]], precondition: Callable[[Array], Array]) -> Array:
    q = -point.gradient
    if not steps:
        # One per cent of the columns' lengths: a unit step along the gradient would make the recursion diverge.
        q = precondition(q)
        return q * (0.01 * float(np.linalg.norm(point.x)) / float(np.linalg.norm(q)))
    saved = []
    for s, y, r in reversed(steps):
        saved.append(r * _dot(s, q))
        q -= saved[-1] * y
    _, y, r = steps[-1]
    q = precondition(q) / (r * _dot(y, precondition(y)))
    for (s, y, r), a in zip(steps, reversed(saved), strict=True):
        q += (a - r * _dot(y, q)) * s
    return q


def _dot(a: Array, b: Array) -> float:
    """a @ b without BLAS, whose threads wait for one another on a busy machine longer than the product takes."""
    return float(np.einsum("i,i", a, b))


def _line_search(evaluate: Callable[[Array], Point | None], point: Point, direction: Array) -> Point | None:
    slope = _dot(point.gradient, direction)
    short, long, length = 0.0, math.inf, 1.0
    lower = None
    for _ in range(30):
        trial = evaluate(point.x + length * direction)
        if trial is None or not trial.value <= point.value + 1e-4 * length * slope:
            long = length
        elif _dot(trial.gradient, direction) < 0.9 * slope:
            short, lower = length, trial
        else:
            return trial
        length = (short + long) / 2 if math.isfinite(long) else 2 * length
    return lower


def toeplitz_start(problem: Problem) -> Array:
    """The best x with equal norms whose columns are alike, but for their ends: num_bands unknowns, some ten steps."""
    n, b = len(problem.inverse), problem.num_bands
    fits = np.arange(n)[:, None] + np.arange(b) < n
    j = np.arange(1, b)
    root = np.append(1.0, np.cumprod((2 * j - 1) / (2 * j)))  # of the prefix sums
    norms = problem.norms.start(np.ones(n))

    def tied(p: Array) -> Point | None:
        point = problem.evaluate(np.append(np.where(fits, p, 0.0), norms))
        return point and dataclasses.replace(point, x=p, gradient=np.sum(point.gradient[: n * b].reshape(n, b), axis=0))

    first = best = tied(root)
    if first is None or best is None:
        raise ValueError("workload has errors beyond floating point for these iterations; rescale or shorten it")
    for point in descend(tied, first, np.copy):
        before, best = best, point
        if before.value - best.value < 1e-6:
            break
    P = np.where(fits, best.x, 0.0)
    return np.append(P / np.sqrt(np.sum(P**2, axis=1, keepdims=True)), norms)


def _search(problem: Problem, point: Point) -> Iterator[tuple[Point, Certificate]]:
    """Yields every point with its certificate, or that of the last one that was certified; ends where none is better.

    Norms and columns move together, then the columns alone: the norms settle slowly, and the certificate is sensitive
    to off-diagonal gradients, which do not vanish while the norms still move. For the max error the weights that the
    rows have in the gradient become the next prior once the smooth problem is solved better than it stands in for the
    maximum: the method of multipliers with an entropic distance.
    """
    certificate = problem.certificate(point)
    yield point, certificate
    precondition, refreshed = preconditioner(problem, point), problem.order > 1
    for number in itertools.count(1):
        before = problem.evaluate(point.x) or point
        for fixed_norms in (False,) if isinstance(problem.norms, UnitNorms) else (False, True):
            problem = dataclasses.replace(problem, fixed_norms=fixed_norms)
            start = problem.evaluate(point.x) or point
            for count, point in enumerate(descend(problem.evaluate, start, precondition), 1):
                certified = count % _CERTIFY_EVERY == 0
                if certified:
                    certificate = problem.certificate(point)
                yield point, certificate
                if not refreshed and count == _REFRESH_AFTER:
                    refreshed = True
                    break
                if certified and _stage_is_over(problem, certificate, count, number * _JOINT_ITERATIONS):
                    break
            precondition = preconditioner(problem, point)
        solved = problem.order > 1 and certificate.smooth < certificate.gap / 2
        if not solved and before.value - point.value < 1e-14:
            return
        if solved:
            problem = dataclasses.replace(problem, prior=point.weights / np.sum(point.weights))
            point = problem.evaluate(point.x) or point
            certificate = problem.certificate(point)
            yield point, certificate


def _stage_is_over(problem: Problem, certificate: Certificate, count: int, longest: int) -> bool:
    if problem.order > 1 and certificate.smooth < certificate.gap / 2:
        return True
    if problem.fixed_norms:
        return certificate.smooth < 1.5 * abs(certificate.diagonal)
    return count >= longest and not isinstance(problem.norms, UnitNorms)


def solve(
    strategy: Banded,
    workload: Workload,
    schema: ParticipationSchema,
    objective: str,
    callback: Callable[[Progress], object] | None,
) -> Solution:
    """See `optimize`. O(n (num_bands + bands of A^-1)^2) time per step of the search, O(n num_bands) memory.

    Raises:
        ValueError: num_bands > min_sep while units take part more than once, or A is singular.
    """
    began = time.perf_counter()
    problem = _problem(strategy, workload, schema, objective)
    rows = None if strategy.coefficients is None else strategy.rows(schema.iterations)[:, : problem.num_bands]
    best = problem.evaluate(toeplitz_start(problem) if rows is None else problem.from_rows(rows))
    if best is None:
        raise ValueError("the error of the strategy to start from is not finite; start from another one")
    gap, least, iterations, converged = 1.0, 0.0, 0, False
    message = "no step lowers the error any more in floating point"
    try:
        for iterations, (point, certificate) in enumerate(_search(problem, best)):
            best = min(best, point, key=problem.loss)
            least = max(least, certificate.least)
            gap = max(0.0, 1 - least / problem.loss(best))
            if converged := gap <= TOLERANCES[objective]:
                message = f"certified within a relative {TOLERANCES[objective]:g} of the least squared {objective}"
                break
            if iterations == _MAX_ITERATIONS:
                message = f"stopped after {_MAX_ITERATIONS} iterations; optimize the result to go on"
                break
            if callback and iterations % _CERTIFY_EVERY == 0:
                error = math.sqrt(schema.max_participations * problem.loss(best))
                if callback(Progress(iterations, error, gap, time.perf_counter() - began)):
                    message = "stopped by the callback; optimize the result to go on"
                    break
    except KeyboardInterrupt:
        message = "interrupted; optimize the result to go on"
    found = _strategy(strategy, best)
    verify(found, best.variances, workload, schema)
    return Solution(
        strategy=found,
        rmse=found.rmse(workload, schema),
        max_error=found.max_error(workload, schema),
        sensitivity=found.sensitivity(schema),
        gap=gap,
        iterations=iterations,
        seconds=time.perf_counter() - began,
        converged=converged,
        message=message,
    )


def _problem(strategy: Banded, workload: Workload, schema: ParticipationSchema, objective: str) -> Problem:
    if schema.max_participations > 1 and strategy.num_bands > schema.min_sep:
        raise ValueError(
            f"num_bands must be <= min_sep={schema.min_sep} to optimize for several participations, got "
            f"{strategy.num_bands}: only then do the column norms alone decide the sensitivity; use fewer bands"
        )
    inverse = workload.inverse_bands(schema.iterations)
    if inverse is None:
        raise ValueError("workload must be invertible for a banded strategy; give every step a positive weight")
    order = 1.0 if objective == "rmse" else _SMOOTH_ORDER
    num_bands = min(strategy.num_bands, schema.iterations)
    uniform = np.full(schema.iterations, 1 / schema.iterations)
    return Problem(inverse, num_bands, norm_set(strategy.column_norms, schema), uniform, order)


def _strategy(family: Banded, point: Point) -> Banded:
    coefficients = np.zeros((len(point.C), family.num_bands))
    # A long step can cross the pole at C[t, t] = 0. A row may change its sign: neither C^T C nor any error changes.
    coefficients[:, : point.C.shape[1]] = point.C * np.sign(point.C[:, :1])
    return dataclasses.replace(family, coefficients=coefficients)
