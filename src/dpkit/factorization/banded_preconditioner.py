"""What shapes the steps of the search for a banded strategy: an approximate inverse Hessian, by a Fourier transform."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from scipy import fft

from dpkit.factorization.banded_problem import Problem, Trial
from dpkit.factorization.column_norms import EpochNorms
from dpkit.factorization.values import Array
from dpkit.numerics import autoregression as ar

_NORM_SCALE = 100.0
_LARGEST_NORM_SCALE = 10.0
_WINDOW = 1_024
_FREQUENCIES = 4_096
_LEAST_CURVATURE = 0.01


def preconditioner(problem: Problem, x: Array) -> Callable[[Array], Array]:
    """An approximate inverse Hessian of the mean error near x, for the max error too.

    Columns that are all alike, the middle ones of x, do better than x here: the weights of its columns,
    -<dF/dC, C> / 2 over a column, vary from one to the next, and the curvature does not. It grows with the weight;
    scaling with a root of the weight does better than with the weight itself.
    """
    n, b = len(problem.inverse), problem.num_bands
    smooth = dataclasses.replace(problem, prior=np.full(n, 1 / n), order=1.0)
    P, v = x[: n * b].reshape(n, b), x[n * b :]
    middle = np.median(P[: n - b + 1] / np.linalg.norm(P[: n - b + 1], axis=1, keepdims=True), axis=0)
    middle = middle / np.linalg.norm(middle)
    alike = np.append(smooth.from_columns(middle, np.ones(n))[: n * b], v)
    trial = smooth.evaluate(alike) or smooth.evaluate(smooth.square_root())
    if trial is None:
        return np.copy
    weight = -np.sum(ar.columns_from_rows(trial.dC * trial.C), axis=1) / 2
    scale = np.sqrt(np.max(weight) / np.maximum(weight, 1e-6 * np.max(weight)))
    inverses = _inverse_symbols(problem, middle)
    by_columns = _by_columns(inverses, np.sqrt(scale)[:, None])
    if isinstance(problem.norms, EpochNorms):
        by_norms = _by_epoch_norms(trial, n, scale)
    else:
        gain = _NORM_SCALE * float(np.mean(np.trace(inverses, axis1=1, axis2=2).real)) / b
        by_norms = lambda gradient: gain * gradient  # noqa: E731

    def apply(gradient: Array) -> Array:
        columns = by_columns(gradient[: n * b].reshape(n, b))
        return np.concatenate([columns.ravel(), by_norms(gradient[n * b :])])

    return apply


def _by_columns(inverses: Array, scale: Array) -> Callable[[Array], Array]:
    """Applies the inverse of a Hessian that is Toeplitz in time, but for `scale` (n, 1), to columns (n, num_bands).

    A Fourier transform in time makes it a num_bands-by-num_bands matrix for every frequency; `inverses` at a few of
    them stand for those around.
    """
    n, b = len(scale), inverses.shape[1]
    length = fft.next_fast_len(n + 2 * b, real=True)
    bounds = (np.arange(len(inverses) + 1) - 0.5) / (len(inverses) - 1) * (length // 2 + 1)
    bounds = np.maximum(np.round(bounds), 0).astype(int)
    # What a column has beyond the end of the run is no variable.
    scale = np.where(np.arange(n)[:, None] + np.arange(b) < n, scale, 0.0)

    def apply(columns: Array) -> Array:
        waves = fft.rfft(columns * scale, length, axis=0)
        for inverse, low, high in zip(inverses, bounds[:-1], bounds[1:], strict=True):
            waves[low:high] = waves[low:high] @ inverse
        return fft.irfft(waves, length, axis=0)[:n] * scale

    return apply


def _by_epoch_norms(trial: Trial, n: int, scale: Array) -> Callable[[Array], Array]:
    """The same for the v of `EpochNorms`, the norms up to a scale.

    The loss is quadratic in the inverse norms y, with the Hessian diag(u) (Q^T Q)^-1 diag(u) for the unit columns Q and
    a u that varies slowly, u^2 y^2 proportional to the weight.
    """
    Q, v = np.split(trial.x, [len(trial.x) - n])
    Q = Q.reshape(n, -1)
    rows = ar.rows_from_columns(Q)
    # Near the ends, where columns that are all alike are far from the best, weights can come out far too small.
    by_norm = np.minimum(scale, _LARGEST_NORM_SCALE) * v / 2
    gain = np.sum(Q[0]) ** 2

    def apply(gradient: Array) -> Array:
        product = np.sum(ar.rows_from_columns(Q * (by_norm * gradient)[:, None]), axis=1)
        return by_norm / gain * np.sum(ar.columns_from_rows(rows * product[:, None]), axis=1)

    return apply


def _inverse_symbols(problem: Problem, column: Array) -> Array:
    """(frequencies, num_bands, num_bands): the inverse Hessian at frequencies from 0 to pi, in units of the weight.

    With N = C^-1, B = A N, H = B^T diag(w) B and K = H N^T, moving C[t, s] moves the gradient at (t', s') by
        2 (N[s, t'] K[t, s'] + H[t', t] (N N^T)[s, s'] + K[t', s] N[s', t]).
    Its Fourier transform in s' is that of the Hessian, taken on a window from the middle of the run; the last row of
    the window stands for all that come after it. The columns' spheres add their projection on both sides and, in units
    of the weight, the identity.
    """
    n, b = len(problem.inverse), problem.num_bands
    m = min(n, max(_WINDOW, 4 * b))
    start, s = (n - m) // 2, min(m // 2, m - b)
    inverse = problem.inverse[start : start + m]
    inverse = np.where(np.arange(inverse.shape[1]) <= np.arange(m)[:, None], inverse, 0.0)
    C = ar.rows_from_columns(np.where(np.arange(m)[:, None] + np.arange(b) < m, column, 0.0))
    B, N = ar.band_solve(ar.band_product(C, inverse), np.eye(m)), ar.band_solve(C, np.eye(m))
    B[-1] *= math.sqrt(n - start - m + 1)
    H, L = B.T @ B, N @ N.T[:, s]
    K = H @ N.T
    frequencies = np.linspace(0, np.pi, min(4 * b, _FREQUENCIES // b + 4) + 1)
    phases = np.exp(-1j * np.outer(frequencies, np.arange(m) - s))
    symbols = np.zeros((len(frequencies), b, b), complex)
    for k in range(b):
        moved = N[s, k:, None] * K[s : s + b, : m - k].T + H[k:, s : s + b] * L[: m - k, None]
        symbols[:, k] = phases[:, : m - k] @ (moved + K[k:, s, None] * N[: m - k, s : s + b])
    tangent = np.eye(b) - np.outer(column, column)
    weight = max(K[s : s + b, s] @ column, 1e-6 * np.max(np.abs(K)))
    symbols = tangent @ symbols @ tangent / weight + np.eye(b)
    values, vectors = np.linalg.eigh((symbols + np.conj(np.swapaxes(symbols, 1, 2))) / 2)
    values = np.maximum(np.abs(values), _LEAST_CURVATURE)
    # Conjugate: waves are rows, multiplied from the left.
    return np.conj((vectors / values[:, None]) @ np.conj(np.swapaxes(vectors, 1, 2)))
