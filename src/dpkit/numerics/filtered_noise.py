"""Variances of a linear recursion driven by a sum of one-pole filters of white noise, in time linear in the steps.

    o_t = (z_t + sum_i gain_i R_i,t - sum_{1 <= j < q} bands[t, j] o_{t-j}) / bands[t, 0],    Var(z_t) = noise[t]
    R_i,t+1 = decay_i R_i,t + z_t

With bands those of A^-1 and (decays, gains) those of a buffered linear Toeplitz C^-1, o is the error A C^-1 z.
The state (R, o_{t-1}, ..., o_{t-q+1}) has m = d + q - 1 entries; its covariance P obeys P' = F P F^T + noise g g^T.
"""

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def variances_reference(bands: Array, decays: Array, gains: Array, noise: Array) -> Array:
    """Var(o_t), (n,), from dense matrices F and g: bands (n, q), q >= 2, decays and gains (d,), noise (n,)."""
    (n, q), d = bands.shape, len(decays)
    P = np.zeros((d + q - 1, d + q - 1))
    result = np.empty(n)
    for t in range(n):
        weights = np.concatenate([gains, -bands[t, 1:]]) / bands[t, 0]
        result[t] = weights @ P @ weights + noise[t] / bands[t, 0] ** 2
        F = np.eye(len(P), k=-1)
        F[: d + 1] = 0
        F[range(d), range(d)] = decays
        F[d] = weights
        g = np.concatenate([np.ones(d), [1 / bands[t, 0]], np.zeros(q - 2)])
        P = F @ P @ F.T + noise[t] * np.outer(g, g)
    return result


@numba.njit(cache=True)
def variances(bands, decays, gains, noise):
    """(Var(o_t) (n,), covariance of the state before every step (n, m, m)): O(n m^2)."""
    (n, q), d = bands.shape, len(decays)
    m = d + q - 1
    covariances = np.zeros((n + 1, m, m))
    result = np.empty(n)
    weights, half = np.empty(m), np.empty((m, m))
    for t in range(n):
        _weights(bands, gains, t, weights)
        P, advanced = covariances[t], covariances[t + 1]
        variance = noise[t] / bands[t, 0] ** 2
        for i in range(m):
            for j in range(m):
                variance += weights[i] * P[i, j] * weights[j]
        result[t] = variance
        _advanced(decays, weights, P, half)
        _advanced(decays, weights, half.T, advanced)
        for i in range(d + 1):
            for j in range(d + 1):
                fresh = noise[t] if i < d else noise[t] / bands[t, 0]
                advanced[i, j] += fresh if j < d else fresh / bands[t, 0]
    return result, covariances


@numba.njit(cache=True)
def variances_gradient(bands, decays, gains, covariances, row_weights):
    """Gradients in decays and gains (d,) and noise (n,) of `sum_t row_weights[t] Var(o_t)`: a sweep back, O(n m^2)."""
    (n, q), d = bands.shape, len(decays)
    m = d + q - 1
    by_decay, by_gain, by_noise = np.zeros(d), np.zeros(d), np.empty(n)
    by_state = np.zeros((m, m))
    weights, half, by_half, by_weight = np.empty(m), np.empty((m, m)), np.empty((m, m)), np.empty(m)
    for t in range(n - 1, -1, -1):
        _weights(bands, gains, t, weights)
        P = covariances[t]
        _advanced(decays, weights, P, half)
        total = row_weights[t] / bands[t, 0] ** 2
        for i in range(d + 1):
            for j in range(d + 1):
                fresh = 1.0 if i < d else 1 / bands[t, 0]
                total += by_state[i, j] * (fresh if j < d else fresh / bands[t, 0])
        by_noise[t] = total
        # The gradient in F is 2 by_state F P: its diagonal for the decays, its row d for the weights.
        for i in range(d):
            for k in range(m):
                by_decay[i] += 2 * by_state[i, k] * half[k, i]
        for j in range(d):
            by_weight[j] = 0.0
            for k in range(m):
                by_weight[j] += 2 * by_state[d, k] * half[k, j] + 2 * row_weights[t] * P[j, k] * weights[k]
            by_gain[j] += by_weight[j] / bands[t, 0]
        _returned(decays, weights, by_state, by_half)
        _returned(decays, weights, by_half.T, by_state)
        for i in range(m):
            for j in range(m):
                by_state[i, j] += row_weights[t] * weights[i] * weights[j]
    return by_decay, by_gain, by_noise


@numba.njit(cache=True)
def _weights(bands, gains, t, out):
    """Row d of F: what o_t takes from the state."""
    d = len(gains)
    for i in range(len(out)):
        out[i] = (gains[i] if i < d else -bands[t, i - d + 1]) / bands[t, 0]


@numba.njit(cache=True)
def _advanced(decays, weights, P, out):
    """F P."""
    d, m = len(decays), len(P)
    for j in range(m):
        total = 0.0
        for i in range(m):
            total += weights[i] * P[i, j]
        out[d, j] = total
        for i in range(d):
            out[i, j] = decays[i] * P[i, j]
        for i in range(d + 1, m):
            out[i, j] = P[i - 1, j]


@numba.njit(cache=True)
def _returned(decays, weights, Q, out):
    """F^T Q."""
    d, m = len(decays), len(Q)
    for j in range(m):
        for i in range(m):
            total = weights[i] * Q[d, j]
            if i < d:
                total += decays[i] * Q[i, j]
            elif i < m - 1:
                total += Q[i + 1, j]
            out[i, j] = total
