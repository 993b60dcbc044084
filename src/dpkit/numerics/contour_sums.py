"""Sequences given by generating functions, sampled so that sums over n steps cost O(log n).

With Y(w) = sum_t y_t / w^t, y_t is the integral of Y(e^z) e^(z t) dz / (2 pi i) around the singularities of Y. Where
these all lie on the segment [0, 1] of the w-plane, the trapezoidal rule on a hyperbola around the negative z-axis gives
y_t for all t of [T, 2 T) from the same few values of Y; so nothing is said about poles that are close or coincide.
In such a block y is smooth, and a sum over its steps a Gauss quadrature for the uniform weight on integers.

References: Weideman and Trefethen (2007), "Parabolic and hyperbolic contours for computing the Bromwich integral".
"""

import functools
import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

# The first steps come from a circle of so many points, wide enough that step t + _CIRCLE does not show in step t.
_FIRST, _CIRCLE, _LOG_RADIUS = 16, 128, 38 / 128
# Points of the hyperbola mu (1 + sin(i u - phi)) / T above the real axis; found by search to give exp(-s t), and these
# times t / T or its square, to 6e-15 over [T, 2 T] for every s >= 0.
_POINTS, _MU, _PHI, _STEP = 24, 7.0, 0.8, 0.11
# Sums of exp(-c x) over a block are to be within 10^-_DIGITS of its length.
_DIGITS = 15


class StepSamples:
    """Nodes that stand for the steps 0, ..., n - 1, in segments up to the `ends`, ascending, the last of them n.

    `steps` and `weights` (N,) are the nodes and what they count, `firsts` (m,) the first node of each segment;
    `points` (P,) are w - 1 where a generating function is to be evaluated.

    Assumes: all singularities of the generating functions lie on the segment [0, 1], and y grows at most like powers
    of t; then `weights @ f(values)` is the sum over steps, to about 1e-13 of sum y^2 for f(y) = y^2 times a polynomial
    of low degree.

    >>> samples = StepSamples([10**9])
    >>> w = 1 + samples.points
    >>> y = samples.values(w / (w - 0.5))
    >>> print(len(y), round(float(samples.weights @ y**2), 12))
    379 1.333333333333
    """

    def __init__(self, ends: list[int]):
        n = ends[-1]
        scales = [_FIRST * 2**i for i in range(max(0, (n - 1) // _FIRST).bit_length())]
        edges = sorted({0, *scales, *ends})
        nodes = [_nodes(high - low, _node_count(low, high)) for low, high in itertools.pairwise(edges)]
        steps = [low + offsets for low, (offsets, _) in zip(edges, nodes, strict=False)]
        self.steps, self.weights = np.concatenate(steps), np.concatenate([weights for _, weights in nodes])
        self.firsts = np.searchsorted(self.steps, np.array([0, *ends[:-1]]) - 0.5)
        blocks = np.split(self.steps, np.searchsorted(self.steps, np.array(scales) - 0.5))
        contours = [_circle(blocks[0])]
        contours += [_hyperbola(t, scale) for t, scale in zip(blocks[1:], scales, strict=True)]
        self.points = np.concatenate([points for points, _ in contours])
        self._kernel = sparse.block_diag([kernel for _, kernel in contours], format="csr")
        self._adjoint = self._kernel.T.tocsr()

    def values(self, transform: Complex) -> Array:
        """y at the steps (N,), from its generating function at the points (P,)."""
        return np.imag(np.asarray(self._kernel @ transform))

    def gradient(self, by_value: Array) -> Complex:
        """g (P,) such that `by_value @ values(transform)` changes by Im(g @ change of transform)."""
        return np.asarray(self._adjoint @ by_value)


def _node_count(low: int, high: int) -> int:
    """How many nodes stand for the steps low, ..., high - 1 <= 2 low, or all of them if they are among the first.

    With r = (high - low) / low, exp(-c (1 + r x)) is within exp(-c) (c r / 4)^(2 m) / (2 m)! <= (r / 4)^(2 m) of a
    polynomial of degree < 2 m on [0, 1], for every c; and one node more makes up for a linear factor.
    """
    if low < _FIRST:
        return high - low
    return min(high - low, 1 + math.ceil(_DIGITS / 2 / math.log10(4 * low / (high - low))))


@functools.lru_cache(maxsize=256)
def _nodes(terms: int, count: int) -> tuple[Array, Array]:
    """Nodes and weights for sums over 0, ..., terms - 1, exact for polynomials of degree < 2 count.

    The eigenvalues of the recurrence of the orthogonal polynomials of Chebyshev (also of Gram) on these integers.
    """
    if count == terms:
        return np.arange(float(terms)), np.ones(terms)
    k = np.arange(1.0, count)
    off_diagonal = np.sqrt(k**2 * (1 - (k / terms) ** 2) / (4 * (4 * k**2 - 1)))
    nodes, vectors = linalg.eigh_tridiagonal(np.zeros(count), off_diagonal)
    return np.asarray((terms - 1) / 2 + terms * nodes, dtype=np.float64), np.asarray(terms * vectors[0] ** 2)


def _circle(steps: Array) -> tuple[Complex, Complex]:
    """(w - 1 (P,), kernel (N, P)) for steps < _FIRST."""
    z = _LOG_RADIUS + 2j * np.pi * (np.arange(_CIRCLE // 2) + 0.5) / _CIRCLE
    return np.expm1(z), 2j / _CIRCLE * np.exp(np.outer(steps, z))


def _hyperbola(steps: Array, scale: int) -> tuple[Complex, Complex]:
    """(w - 1 (P,), kernel (N, P)) for steps in [scale, 2 scale)."""
    u = 1j * _STEP * (np.arange(_POINTS) + 0.5) - _PHI
    z, dz = _MU * (1 + np.sin(u)), 1j * _STEP * _MU * np.cos(u)
    return np.expm1(z / scale), np.exp(np.outer(steps / scale, z)) * dz / (np.pi * scale)
