"""Exact deltas of two modes, by one quadrature, and those of simulated full outcomes."""

import itertools
import math

import numpy as np
from scipy import integrate, special


def two_modes(gram: np.ndarray, noise_multiplier: float, epsilon: float) -> tuple[float, float]:
    """(unit present against absent, absent against present).

    Under the world without the unit v_1 = f z_1 - k_11 / 2 and v_2 = g z_1 + h z_2 - k_22 / 2, and e^L is the mean of
    e^v_1 and e^v_2. Given z_1, L crosses epsilon at one z_2, on both sides of which Gaussian integrals are known.
    """
    (k11, k12), (_, k22) = np.asarray(gram) / noise_multiplier**2
    f = math.sqrt(k11)
    g = k12 / f
    h = math.sqrt(k22 - g * g)
    e = math.exp(epsilon)

    def parts(z: float, level: float) -> tuple[float, float, float]:
        """e^v_1, the mean of e^v_2, and the z_2 at which e^v_1 + e^v_2 is 2 level."""
        first, second = math.exp(f * z - k11 / 2), math.exp(g * z - k22 / 2 + h * h / 2)
        rest = 2 * level - first
        return first, second, (math.log(rest) + k22 / 2 - g * z) / h if rest > 0 else -math.inf

    def present(z: float) -> float:
        first, second, t = parts(z, e)
        inner = (first / 2 - e) * special.ndtr(-t) + second / 2 * special.ndtr(h - t)
        return inner * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    def absent(z: float) -> float:
        first, second, t = parts(z, 1 / e)
        inner = (1 - e * first / 2) * special.ndtr(t) - e * second / 2 * special.ndtr(t - h)
        return inner * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    grid = np.linspace(-12, 14 + f, 60)
    return tuple(  # type: ignore[return-value]
        math.fsum(integrate.quad(side, a, b, epsabs=1e-16, epsrel=1e-11)[0] for a, b in itertools.pairwise(grid))
        for side in (present, absent)
    )


def full_outcomes(modes: np.ndarray, stddev: float, present: bool, count: int, generator: np.random.Generator):
    """Losses log(P / Q) of whole outcomes (count, n), from the densities of n-dimensional Gaussians; modes (n, b)."""
    n, b = modes.shape
    outcomes = stddev * generator.standard_normal((count, n))
    if present:
        outcomes += modes.T[generator.integers(b, size=count)]
    distances = np.sum((outcomes[:, None, :] - modes.T[None]) ** 2, axis=2)
    log_p = special.logsumexp(-distances / (2 * stddev**2), axis=1) - math.log(b)
    return log_p + np.sum(outcomes**2, axis=1) / (2 * stddev**2)
