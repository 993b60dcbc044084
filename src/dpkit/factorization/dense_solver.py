"""The best strategy for a fixed batch order, by maximising a lower bound that holds for all strategies.

With X = C^T C, weights w_t that sum to 1 and M = diag(w)^(1/2) A, the weighted squared error is tr(M X^{-1} M^T). For
any F, with T the sum of the singular values of M F, the inequality of arithmetic and geometric means says

    tr(M X^{-1} M^T) + tr(F^T X F) >= 2 T.

Let F be zero outside of the classes (steps r, r + b, ... of one unit) and its rows of length v_r^(1/2) in class r.
Then the rows of F in one class, over v_r^(1/2), are contributions of norm 1 that a unit might make, so that tr(F^T X F)
is at most the sum of all v_r, times the squared sensitivity of C. Scaled in the best way: at sensitivity 1 the squared
error is at least T^2 / sum_r v_r. The maximum over F (and over w, for the max error) is the least error of any
strategy; at it X = F^{-T} (F^T M^T M F)^{1/2} F^{-1} has no off-diagonal entries within a class and is optimal.

References: for one participation Denisov et al. (2022) and, as the dual of the gamma_2 norm, Haagerup (1985); for
several, Choquette-Choo, McMahan, Rush and Thakurta (2023), who optimise over such X.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg, optimize

from dpkit.factorization.base import dense_size, lower_factor
from dpkit.factorization.dense import Dense
from dpkit.factorization.participation import MinSep, ParticipationSchema
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.values import Array
from dpkit.factorization.workload import Workload

_MAX_STEPS = 1000
_CHECK_EVERY = 5
# The relative gap (of squared errors) that counts as solved.
_GAP = {"rmse": 1e-5, "max_error": 1e-4}
# At the least max error many rows may have weight 0, and w then says too little about C. So w keeps this much of the
# uniform weights, which costs about as much of the optimum.
_EVEN = 3e-5
_OPTIONS: Any = {"maxcor": 30, "ftol": 0.0, "gtol": 1e-12, "maxiter": _MAX_STEPS, "maxfun": 2 * _MAX_STEPS}


class Bound:
    """log(T / sqrt(sum of v)) as a function of free variables: log v (b,), rows of F (b, k, k), z with w ~ z^2."""

    def __init__(self, A: Array, epochs: int, objective: str):
        self.A, self.n, self.k = A, len(A), epochs
        self.b = self.n // epochs
        self.free_weights = objective == "max_error"

    def start(self) -> Array:
        directions = np.broadcast_to(np.eye(self.k), (self.b, self.k, self.k))
        z = np.full(self.n if self.free_weights else 0, self.n**-0.5)
        return np.concatenate([np.zeros(self.b), directions.ravel(), z])

    def __call__(self, variables: Array) -> tuple[float, Array]:
        """The bound and its gradient."""
        v, directions, norms, w = self._parts(variables)
        F = np.sqrt(v)[:, None, None] * directions
        U, S, V = self._decomposition(F, w)
        T = np.sum(S)
        blocks = V.reshape(self.k, self.b, self.n).transpose(1, 0, 2)
        # (F^T M^T M F)^(1/2) = V S V^T, and the derivative of T in F is F^{-T} times that, needed within the classes.
        within = (blocks * S) @ blocks.transpose(0, 2, 1) / T
        by_F = np.linalg.solve(F.transpose(0, 2, 1), within)
        along = np.sum(by_F * directions, axis=2, keepdims=True)
        by_rows = np.sqrt(v)[:, None, None] * (by_F - along * directions) / norms
        gradient = [(np.trace(within, axis1=1, axis2=2) - v) / 2, by_rows.ravel()]
        if self.free_weights:
            by_w, z = U**2 @ S / (2 * T * w), variables[-self.n :]
            mean = by_w @ z**2 / (z @ z)
            gradient.append(2 * (1 - _EVEN) * z / (z @ z) * (by_w - mean))
        return float(np.log(T)), np.concatenate(gradient)

    def gram(self, variables: Array) -> Array:
        """The X that belongs to these variables, made feasible: orthogonal within the classes, sensitivity 1."""
        v, directions, _, w = self._parts(variables)
        F = np.sqrt(v)[:, None, None] * directions
        _, S, V = self._decomposition(F, w)
        columns = (V * np.sqrt(S)).T.reshape(self.n, self.k, self.b)
        C = np.einsum("mlr,rlj->mjr", columns, np.linalg.inv(F)).reshape(self.n, self.n)
        X = (C.T @ C).reshape(self.k, self.b, self.k, self.b)
        r = np.arange(self.b)
        X[:, r, :, r] *= np.eye(self.k)
        scale = np.tile(1 / np.sqrt(np.einsum("jrjr->r", X)), self.k)
        return X.reshape(self.n, self.n) * scale * scale[:, None]

    def _parts(self, variables: Array) -> tuple[Array, Array, Array, Array]:
        """v, which sums to 1; the rows of F at length 1, and their lengths before; w, which sums to 1."""
        log_v, rows, z = np.split(variables, [self.b, self.b + self.n * self.k])
        rows = rows.reshape(self.b, self.k, self.k)
        norms = np.linalg.norm(rows, axis=2, keepdims=True)
        v = np.exp(log_v - np.max(log_v))
        w = np.full(self.n, 1 / self.n)
        if self.free_weights:
            w = (1 - _EVEN) * z**2 / (z @ z) + _EVEN * w
        return v / np.sum(v), rows / norms, norms, w

    def _decomposition(self, F: Array, w: Array) -> tuple[Array, Array, Array]:
        """(U, S, V) with M F = U diag(S) V^T."""
        AF = np.einsum("tjr,rjl->tlr", self.A.reshape(self.n, self.k, self.b), F).reshape(self.n, self.n)
        U, S, Vt = linalg.svd(np.sqrt(w)[:, None] * AF, overwrite_a=True)
        return U, S, Vt.T


@dataclasses.dataclass
class Best:
    """The best strategy so far, and the largest lower bound."""

    strategy: Dense
    error: float = np.inf
    bound: float = 0.0

    @property
    def gap(self) -> float:
        return 1 - (self.bound / self.error) ** 2


def solve(
    workload: Workload,
    schema: ParticipationSchema,
    objective: str,
    callback: Callable[[Progress], object] | None,
) -> Solution:
    """The `Solution` for `Dense()`; see `optimize`.

    Raises:
        ValueError: `MinSep` with several participations. There the classes overlap, nothing like the bound above is
            known, and of strategies with entries min_sep or more below the diagonal not even the sensitivity is cheap.
    """
    if isinstance(schema, MinSep) and schema.max_participations > 1:
        raise ValueError(
            f"Dense is optimised for SingleParticipation and FixedEpoch, got {schema}; use "
            f"Banded(num_bands={schema.min_sep}), the largest family whose sensitivity is known exactly, or, if every "
            "epoch has the same batches in the same order, FixedEpoch"
        )
    start, n = time.perf_counter(), dense_size(schema.iterations)
    bound = Bound(workload.matrix(n), schema.max_participations, objective)
    best, message, steps = Best(Dense(np.eye(n))), "", 0

    def check(variables: Array) -> None:
        best.bound = max(best.bound, math.exp(bound(variables)[0]))
        strategy = _strategy(bound.gram(variables))
        error = getattr(strategy, objective)(workload, schema)
        if error < best.error:
            best.error, best.strategy = error, strategy

    def report(intermediate_result: optimize.OptimizeResult) -> None:
        nonlocal steps, message
        steps += 1
        if steps % _CHECK_EVERY == 0:
            check(intermediate_result.x)
            if callback and callback(Progress(steps, best.error, best.gap, time.perf_counter() - start)):
                message = "stopped by the callback"
            if message or best.gap <= _GAP[objective]:
                raise StopIteration

    def descent(variables: Array) -> tuple[float, Array]:
        try:
            value, gradient = bound(variables)
        except linalg.LinAlgError:
            # A trial step with dependent rows of F. The line search would give up after an infinity.
            return 1e3, np.zeros_like(variables)
        return -value, -gradient

    x = bound.start()
    check(x)
    try:
        x = optimize.minimize(descent, x, jac=True, method="L-BFGS-B", callback=report, options=_OPTIONS).x
        check(x)
    except KeyboardInterrupt:
        message = "interrupted"
    return Solution.of(
        best.strategy,
        workload,
        schema,
        gap=max(best.gap, 0.0),
        iterations=steps,
        seconds=time.perf_counter() - start,
        converged=best.gap <= _GAP[objective],
        message=message or f"certified gap {best.gap:.1e}",
    )


def _strategy(gram: Array) -> Dense:
    """The strategy with this C^T C, or with one nearer to its diagonal if making it feasible has made it indefinite."""
    for kept in (1.0, 0.999, 0.99, 0.9, 0.5):
        try:
            return Dense(lower_factor(kept * gram + (1 - kept) * np.diag(np.diag(gram))))
        except linalg.LinAlgError:
            continue
    return Dense(np.diag(np.sqrt(np.diag(gram))))
