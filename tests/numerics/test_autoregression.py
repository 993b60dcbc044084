"""Kernels of banded triangular matrices against dense linear algebra and their NumPy references."""

import numpy as np
import pytest

from dpkit.numerics import autoregression as ar

SHAPES = [(1, 1), (5, 1), (7, 7), (12, 3), (40, 6)]


def banded(n, p, seed=0):
    """Random rows of bands with a dominant diagonal of either sign."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(n, p)) * 0.3
    W[:, 0] = (1 + rng.random(n)) * rng.choice([-1, 1], n)
    W[np.arange(p) > np.arange(n)[:, None]] = 0
    return W


def dense(W):
    n, p = W.shape
    matrix = np.zeros((n, n))
    for j in range(p):
        matrix[np.arange(j, n), np.arange(n - j)] = W[j:, j]
    return matrix


def band(matrix, p):
    n = len(matrix)
    W = np.zeros((n, p))
    for j in range(p):
        W[j:, j] = np.diag(matrix, -j)
    return W


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_covariance_is_the_band_of_the_dense_inverse(n, p):
    W = banded(n, p)
    inverse = np.linalg.inv(dense(W))
    np.testing.assert_allclose(ar.windowed_covariance(W), band(inverse @ inverse.T, p), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_symmetric_band_inverts_a_product_with_a_symmetric_matrix(n, p):
    W, values = banded(n, p), np.random.default_rng(1).normal(size=(n, p))
    S = dense(values)
    S = S + S.T
    target = band(dense(W) @ S, p)
    np.testing.assert_allclose(ar.symmetric_band(W, target), band(S, p), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_kernels_agree_with_their_references(n, p):
    W, rng = banded(n, p), np.random.default_rng(2)
    target, weights = rng.normal(size=(n, p)), rng.random(n)
    S = ar.windowed_covariance(W)
    np.testing.assert_allclose(
        ar.symmetric_band(W, target), ar.symmetric_band_reference(W, target), rtol=1e-12, atol=1e-13
    )
    np.testing.assert_allclose(
        ar.windowed_covariance_adjoint(W, S, weights),
        ar.windowed_covariance_adjoint_reference(W, S, weights),
        rtol=1e-12,
        atol=1e-13,
    )


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_adjoint_is_the_gradient_of_the_dense_formula(n, p):
    W, weights = banded(n, p), np.random.default_rng(3).random(n)
    inverse = np.linalg.inv(dense(W))
    # d tr(D V V^T) = -2 <V^T D V V^T, dW> for V = W^-1.
    expected = -2 * inverse.T @ np.diag(weights) @ inverse @ inverse.T
    found = ar.windowed_covariance_adjoint(W, ar.windowed_covariance(W), weights)
    np.testing.assert_allclose(found, band(expected, p), rtol=1e-10, atol=1e-12)


def test_a_recursion_that_overflows_is_not_finite():
    W = np.tile([1.0, -1e200], (5, 1))
    W[0, 1] = 0
    with np.errstate(over="ignore"):
        assert not np.all(np.isfinite(ar.windowed_covariance(W)))


@pytest.mark.parametrize(("n", "b", "q"), [(1, 1, 1), (6, 6, 6), (9, 4, 2), (30, 3, 5), (8, 1, 3)])
def test_products_and_solves_are_those_of_dense_matrices(n, b, q):
    C, inverse = banded(n, b), banded(n, q, seed=4)
    product = ar.band_product(C, inverse)
    p = min(n, b + q - 1)
    np.testing.assert_allclose(product, band(dense(C) @ dense(inverse), p), atol=1e-14)
    np.testing.assert_allclose(product, ar.band_product_reference(C, inverse), rtol=1e-13, atol=1e-15)
    D = banded(n, p, seed=5)
    np.testing.assert_allclose(
        ar.band_product_adjoint(D, inverse, b), band(dense(D) @ dense(inverse).T, b), rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(
        ar.band_product_adjoint(D, inverse, b), ar.band_product_adjoint_reference(D, inverse, b), rtol=1e-13, atol=1e-15
    )
    values = np.random.default_rng(6).normal(size=(n, 2))
    np.testing.assert_allclose(dense(C) @ ar.band_solve(C, values), values, atol=1e-12)
    np.testing.assert_allclose(dense(C).T @ ar.band_solve(C, values, transposed=True), values, atol=1e-12)


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_columns_hold_the_same_entries_as_rows(n, p):
    W = banded(n, p)
    P = ar.columns_from_rows(W)
    matrix = dense(W)
    for s in range(n):
        np.testing.assert_array_equal(P[s, : n - s], matrix[s : s + p, s])
    np.testing.assert_array_equal(ar.rows_from_columns(P), W)
