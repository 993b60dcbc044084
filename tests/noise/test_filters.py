"""Filters against the strategies' own matrices: unit vectors pushed through, and nothing random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit import factorization as fz
from dpkit.factorization import forms
from dpkit.noise.filters import filter_of
from noise.strategies import ITERATIONS, STRATEGIES, is_square


def streamed(form: forms.Form, n: int, memory: str, count: int, dtype: str = "float64") -> np.ndarray:
    """The (n, n) matrix that a filter applies, from n unit vectors side by side, in blocks of `count` or in steps."""
    filtering = filter_of(form, memory, jnp.dtype(dtype))
    scales = (
        np.ones(n)
        if form.scales is None
        else form.scales[np.minimum(np.arange(n) // form.window, len(form.scales) - 1)]
    )
    z = jnp.asarray(np.vstack([np.eye(n) / scales, np.zeros((count, n))]), filtering.work)

    @jax.jit
    def take(kept, t):
        draw = lambda s: z[s]  # noqa: E731
        return filtering.step(kept, t, draw) if count == 1 else filtering.block(kept, t, count, draw)

    kept, rows = jnp.zeros((filtering.copies, n), dtype), []
    for t in range(0, n, count):
        x, kept = take(kept, jnp.int32(t))
        rows.append(np.asarray(x, np.float64).reshape(-1, n))
    return np.concatenate(rows)[:n]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_filter_applies_the_inverse(name, count):
    strategy = STRATEGIES[name]
    form = strategy.form(ITERATIONS)
    expected = strategy.inverse_matrix(ITERATIONS)
    for memory in ("store", "regenerate") if isinstance(form, forms.PastInputs) else ("store",):
        found = streamed(form, ITERATIONS, memory, count)
        if is_square(strategy):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        else:
            np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "strategy", [fz.BandedSquareRoot(32), fz.BufferedLinearToeplitz(theta=[0.999, 0.9], omega=[0.1, 0.2]), fz.Tree(64)]
)
def test_longer_runs_and_bands(strategy):
    expected = strategy.inverse_matrix(64)
    for count in (1, 8, 32):
        found = streamed(strategy.form(64), 64, "store", count)
        np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("name", ["banded", "banded inverse", "blt", "online trees of 6, completed", "dense"])
def test_other_types_agree_to_their_precision(name, dtype, tolerance):
    strategy = STRATEGIES[name]
    expected = strategy.inverse_matrix(ITERATIONS)
    for count in (1, 16):
        found = streamed(strategy.form(ITERATIONS), ITERATIONS, "store", count, dtype)
        difference = found - expected if is_square(strategy) else found @ found.T - expected @ expected.T
        assert np.max(np.abs(difference)) <= tolerance * np.max(np.abs(expected)) ** 2
