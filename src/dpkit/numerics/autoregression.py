"""Exact windowed covariances of an autoregression, and the gradient through them, in time linear in its length.

For a lower-triangular banded W with p bands and white noise z, the solution of W x = z has covariance S = (W^T W)^-1,
whose diagonal holds the squared row norms of W^-1. W S = W^-T is upper-triangular with diagonal 1 / W[t, t], so its
row t, read up to the diagonal, says with a_j = -W[t, t - j] / W[t, t]

    S[t, t - i] = sum_j a_j S[t - j, t - i] for 0 < i < p,    S[t, t] = 1 / W[t, t]^2 + sum_i a_i S[t, t - i].

Only entries within the band are needed to go on: O(n p^2) time and O(n p) memory instead of an n-by-n inverse.

Rows are stored from the diagonal backwards: `W[t, j]` is the entry at (t, t - j), and entries before the first column
must be zero. Beside each kernel stands the same recursion in plain NumPy, which the tests compare it with.
"""

from typing import Any

import numba
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from scipy import linalg

Array = NDArray[np.float64]

# Sums may be reordered, which vectorises them; infinities and NaN keep their meaning, so a diverging trial is seen.
_compiled = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})


def windowed_covariance(W: Array) -> Array:
    """Band (n, p) of the covariance of x, where W x = z, for a lower-triangular W with p bands (n, p)."""
    target = np.zeros_like(W)
    target[:, 0] = 1 / W[:, 0]
    return symmetric_band(W, target)


@_compiled
def symmetric_band(W: Array, target: Array) -> Array:
    """Band (n, p) of the symmetric S for which the lower band of W S is `target` (n, p), W having p bands.

    `S[t, j]` is the entry at (t, t - j), and by symmetry that at (t - j, t). Entries of `target` before the first
    column are not looked at.
    """
    n, p = W.shape
    S = np.zeros((n, p))
    a, c = np.empty(p), np.empty(p)
    for t in range(n):
        m = min(p - 1, t)
        for j in range(1, m + 1):
            a[j] = -W[t, j] / W[t, 0]
            c[j] = target[t, j] / W[t, 0]
        for i in range(1, m + 1):
            # Row t - i holds the entries (t - i, t - j) for all j >= i: both halves of a symmetric product.
            row = S[t - i]
            dot = row[0] * a[i]
            for lag in range(1, m + 1 - i):
                dot += row[lag] * a[i + lag]
                c[i + lag] += row[lag] * a[i]
            c[i] += dot
        pivot = target[t, 0] / W[t, 0]
        for i in range(1, m + 1):
            S[t, i] = c[i]
            pivot += a[i] * c[i]
        S[t, 0] = pivot
    return S


def symmetric_band_reference(W: Array, target: Array) -> Array:
    """`symmetric_band` in plain NumPy."""
    n, p = W.shape
    S = np.zeros((n, p))
    for t in range(n):
        m = min(p - 1, t)
        a = -W[t, 1 : m + 1] / W[t, 0]
        S[t, 1 : m + 1] = target[t, 1 : m + 1] / W[t, 0] + window(S, t, m) @ a
        S[t, 0] = target[t, 0] / W[t, 0] + a @ S[t, 1 : m + 1]
    return S


@_compiled
def windowed_covariance_adjoint(W: Array, S: Array, weights: Array) -> Array:
    """Gradient (n, p) of sum_t weights[t] Var(x_t) with respect to W, by the reverse sweep; S is W's covariance."""
    n, p = W.shape
    T = np.zeros((n, p))  # derivatives with respect to S
    D = np.zeros((n, p))
    a, da, dc = np.empty(p), np.empty(p), np.empty(p)
    for t in range(n - 1, -1, -1):
        m = min(p - 1, t)
        dv = T[t, 0] + weights[t]
        for j in range(1, m + 1):
            a[j] = -W[t, j] / W[t, 0]
            dc[j] = T[t, j] + dv * a[j]
            da[j] = dv * S[t, j]
        for i in range(1, m + 1):
            row, out = S[t - i], T[t - i]
            dot = row[0] * dc[i]
            out[0] += a[i] * dc[i]
            for lag in range(1, m + 1 - i):
                dot += row[lag] * dc[i + lag]
                da[i + lag] += row[lag] * dc[i]
                out[lag] += a[i] * dc[i + lag] + a[i + lag] * dc[i]
            da[i] += dot
        pivot = -2.0 * dv / W[t, 0] ** 2
        for j in range(1, m + 1):
            D[t, j] = -da[j] / W[t, 0]
            pivot -= a[j] * da[j]
        D[t, 0] = pivot / W[t, 0]
    return D


def windowed_covariance_adjoint_reference(W: Array, S: Array, weights: Array) -> Array:
    """`windowed_covariance_adjoint` in plain NumPy."""
    n, p = W.shape
    T, D = np.zeros((n, p)), np.zeros((n, p))
    for t in range(n - 1, -1, -1):
        m = min(p - 1, t)
        a, dv = -W[t, 1 : m + 1] / W[t, 0], T[t, 0] + weights[t]
        dc = T[t, 1 : m + 1] + dv * a
        da = dv * S[t, 1 : m + 1] + window(S, t, m) @ dc
        outer = np.outer(a, dc) + np.outer(dc, a)
        for i in range(m):
            T[t - 1 - i, : m - i] += outer[i, i:]
            T[t - 1 - i, 0] -= a[i] * dc[i]
        D[t, 1 : m + 1] = -da / W[t, 0]
        D[t, 0] = (-2.0 * dv / W[t, 0] ** 2 - a @ da) / W[t, 0]
    return D


def window(S: Array, t: int, m: int) -> Array:
    """The (m, m) block of rows and columns t - 1, ..., t - m, read off the band S."""
    K = np.zeros((m, m))
    for i in range(m):
        K[i, i:] = K[i:, i] = S[t - 1 - i, : m - i]
    return K


@_compiled
def band_product(C: Array, inverse: Array) -> Array:
    """Bands (n, min(n, b + q - 1)) of the product of lower-triangular matrices of bands C (n, b) and inverse (n, q)."""
    (n, b), q = C.shape, inverse.shape[1]
    W = np.zeros((n, min(n, b + q - 1)))
    for t in range(n):
        for i in range(min(b, t + 1)):
            for m in range(min(q, t - i + 1)):
                W[t, i + m] += C[t, i] * inverse[t - i, m]
    return W


def band_product_reference(C: Array, inverse: Array) -> Array:
    """`band_product` in plain NumPy."""
    (n, b), q = C.shape, inverse.shape[1]
    W = np.zeros((n, min(n, b + q - 1)))
    for i in range(b):
        for m in range(min(q, n - i)):
            W[i:, i + m] += C[i:, i] * inverse[: n - i, m]
    return W


@_compiled
def band_product_adjoint(D: Array, inverse: Array, num_bands: int) -> Array:
    """Gradient (n, num_bands) with respect to C of a function whose gradient in `band_product(C, inverse)` is D."""
    n, q = inverse.shape
    dC = np.zeros((n, num_bands))
    for t in range(n):
        for i in range(min(num_bands, t + 1)):
            total = 0.0
            for m in range(min(q, t - i + 1)):
                total += D[t, i + m] * inverse[t - i, m]
            dC[t, i] = total
    return dC


def band_product_adjoint_reference(D: Array, inverse: Array, num_bands: int) -> Array:
    """`band_product_adjoint` in plain NumPy."""
    n, q = inverse.shape
    dC = np.zeros((n, num_bands))
    for i in range(num_bands):
        for m in range(min(q, n - i)):
            dC[i:, i] += D[i:, i + m] * inverse[: n - i, m]
    return dC


def columns_from_rows(C: Array) -> Array:
    """The bands C[t, j] at (t, t - j) as P[s, j] at (s + j, s), (n, b) both."""
    n, b = C.shape
    padded = np.concatenate([C, np.zeros((b, b))])
    row, entry = padded.strides
    return as_strided(padded, (n, b), (row, row + entry)).copy()


def rows_from_columns(P: Array) -> Array:
    """The inverse of `columns_from_rows`."""
    n, b = P.shape
    padded = np.concatenate([np.zeros((b, b)), P])
    row, entry = padded.strides
    return as_strided(padded[b:], (n, b), (row, entry - row)).copy()


def band_solve(W: Array, values: Array, *, transposed: bool = False) -> Array:
    """W^-1 @ values, or W^-T @ values, (n, m), for a lower-triangular W with bands (n, p); by LAPACK."""
    solver: Any = linalg.get_lapack_funcs("tbtrs", (W, values))
    return solver(columns_from_rows(W).T, values, uplo="L", trans="T" if transposed else "N")[0]
