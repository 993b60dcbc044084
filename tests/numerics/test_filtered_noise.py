"""Variances of filtered noise: kernels against their NumPy reference, and both against dense matrices."""

import numpy as np
import pytest
from scipy import linalg

from dpkit.numerics.filtered_noise import variances, variances_gradient, variances_reference


def example(n: int, q: int, d: int):
    rng = np.random.default_rng(n + 10 * q + 100 * d)
    bands = np.column_stack([rng.uniform(1, 2, n), *rng.uniform(-0.6, 0.3, (q - 1, n))])
    bands[np.arange(n)[:, None] < np.arange(q)] = 0
    return bands, rng.uniform(0.1, 0.95, d), rng.uniform(-0.3, 0, d), rng.uniform(0.5, 2, n), rng.random(n)


CASES = [(1, 2, 1), (12, 2, 1), (30, 3, 2), (25, 5, 4), (3, 5, 2)]


@pytest.mark.parametrize("case", CASES)
def test_dense(case):
    bands, decays, gains, noise, _ = example(*case)
    n, q = bands.shape
    inverse_workload = np.zeros((n, n))
    for t in range(n):
        for j in range(min(q, t + 1)):
            inverse_workload[t, t - j] = bands[t, j]
    column = np.append(1.0, [gains @ decays**t for t in range(n - 1)])
    B = np.linalg.solve(inverse_workload, linalg.toeplitz(column, np.zeros(n)))
    truth = B**2 @ noise
    np.testing.assert_allclose(variances_reference(bands, decays, gains, noise), truth, rtol=1e-12)
    np.testing.assert_allclose(variances(bands, decays, gains, noise)[0], truth, rtol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_gradient_is_that_of_the_reference(case):
    bands, decays, gains, noise, weights = example(*case)
    _, states = variances(bands, decays, gains, noise)
    found = variances_gradient(bands, decays, gains, states, weights)
    parameters = (decays, gains, noise)
    for i, by_parameter in enumerate(found):
        for j in range(len(by_parameter)):
            ahead, behind = (
                [p + step * np.eye(len(p))[j] if k == i else p for k, p in enumerate(parameters)]
                for step in (1e-5, -1e-5)
            )
            slope = weights @ (variances_reference(bands, *ahead) - variances_reference(bands, *behind)) / 2e-5
            assert by_parameter[j] == pytest.approx(slope, rel=1e-6, abs=1e-8)
