"""Sensitivities against brute force over every pattern: signs, and vectors, of contributions."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpkit.factorization import (
    BandedInverseSquareRoot,
    BandedSquareRoot,
    BandedToeplitz,
    Dense,
    FixedEpoch,
    Identity,
    MinSep,
    SingleParticipation,
    SquareRoot,
    Tree,
)
from dpkit.factorization.sensitivity import (
    banded_sensitivity,
    gram_sensitivity,
    largest_pattern_sum,
    shifted_sum,
    toeplitz_majorant,
    toeplitz_sensitivity,
)
from factorization.oracle import positive_sensitivity, scalar_sensitivity, vector_sensitivity

SCHEMAS = [
    *(SingleParticipation(n) for n in (1, 5)),
    *(FixedEpoch(n, k) for n, k in [(1, 1), (8, 1), (8, 2), (8, 4), (8, 8), (12, 3)]),
    *(MinSep(7, b, k) for b in (1, 2, 3) for k in (1, 2, None)),
    MinSep(1, 1),
    MinSep(7, 20),
    MinSep(9, 2, 3),
    MinSep(9, 4),
    MinSep(12, 4, 3),
    MinSep(12, 5, 2),
]
RNG = np.random.default_rng(0)


def lower(n, signed):
    return np.tril(RNG.normal(size=(n, n)) if signed else RNG.uniform(size=(n, n)))


def banded(C, num_bands):
    return np.tril(C) - np.tril(C, -num_bands)


def within(bound, exact):
    """The bound is not too small, and too large by no more than its outward rounding."""
    assert exact <= bound <= exact * (1 + 1e-11)


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_largest_pattern_sum(schema):
    for _ in range(20):
        # With ties and zeros, where a wrong recursion would hide least.
        values = RNG.integers(0, 5, size=schema.iterations).astype(float)
        assert largest_pattern_sum(values, schema) == max(sum(values[list(p)]) for p in schema.patterns())


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
@pytest.mark.parametrize("signed", [False, True])
def test_banded_is_exact_for_any_signs(schema, signed):
    num_bands = min(schema.min_sep, schema.iterations)
    for _ in range(3):
        C = banded(lower(schema.iterations, signed), num_bands)
        exact = scalar_sensitivity(C, schema)
        within(banded_sensitivity(np.sum(C**2, axis=0), num_bands, schema), exact)
        within(gram_sensitivity(C.T @ C, schema), exact)
        assert vector_sensitivity(C, schema) <= exact * (1 + 1e-12)


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_monotone_toeplitz_is_exact(schema):
    n = schema.iterations
    for _ in range(5):
        column = np.sort(RNG.uniform(size=n))[::-1] * (np.arange(n) < RNG.integers(1, n + 1))
        C = BandedToeplitz(n, np.where(column[0], column, 1.0)).matrix(n)
        within(toeplitz_sensitivity(C[:, 0], schema), positive_sensitivity(C, schema))
        if schema.max_participations <= 4:
            assert scalar_sensitivity(C, schema) <= toeplitz_sensitivity(C[:, 0], schema)


@pytest.mark.parametrize("schema", [s for s in SCHEMAS if s.max_participations <= 6], ids=str)
def test_majorant_bounds_any_toeplitz(schema):
    n = schema.iterations
    for _ in range(5):
        column = RNG.normal(size=n)
        strategy = BandedToeplitz(n, column)
        bound = strategy.sensitivity(schema)
        C = strategy.matrix(n)
        assert bound >= scalar_sensitivity(C, schema)
        assert bound >= vector_sensitivity(C, schema)
        if schema.max_participations > 1:
            assert bound == pytest.approx(toeplitz_sensitivity(toeplitz_majorant(column), schema), rel=1e-14)


@pytest.mark.parametrize("schema", [s for s in SCHEMAS if s.max_participations <= 6], ids=str)
@pytest.mark.parametrize("signed", [False, True])
def test_gram_is_a_bound_and_exact_where_it_says_so(schema, signed):
    for _ in range(3):
        C = lower(schema.iterations, signed)
        bound = gram_sensitivity(C.T @ C, schema)
        exact = scalar_sensitivity(C, schema)
        assert bound >= exact
        assert bound >= vector_sensitivity(C, schema)
        if schema.max_participations == 1 or (isinstance(schema, FixedEpoch) and not signed):
            within(bound, exact)


def test_gram_handles_signs_that_cancel():
    # Columns that cancel when added: contributions of opposite sign are the worst.
    C = np.array([[1.0, 0.0], [1.0, -1.0]])
    schema = FixedEpoch(2, 2)
    assert positive_sensitivity(C, schema) == pytest.approx(1.0)
    within(gram_sensitivity(C.T @ C, schema), scalar_sensitivity(C, schema))
    assert scalar_sensitivity(C, schema) == pytest.approx(np.sqrt(5))


def test_gram_bound_is_the_row_bound():
    # Equal positive entries: every row of every pattern is alike, so the bound is exact.
    for schema in (MinSep(9, 2, 3), MinSep(9, 3)):
        within(gram_sensitivity(np.ones((9, 9)), schema), schema.max_participations)


def row_bound(X, schema):
    """Each step charged the best |row sum| over the patterns through it, then the best pattern: by enumeration."""
    patterns = list(schema.patterns())
    charge = [max(np.abs(X[i, list(p)]).sum() for p in patterns if i in p) for i in range(len(X))]
    return np.sqrt(max(sum(charge[i] for i in p) for p in patterns))


@pytest.mark.parametrize("schema", [s for s in SCHEMAS if isinstance(s, MinSep)], ids=str)
def test_row_bound_by_enumeration(schema):
    C = lower(schema.iterations, signed=True)
    within(gram_sensitivity(C.T @ C, schema), row_bound(C.T @ C, schema))


@given(st.data())
def test_shifted_sum(data):
    n = data.draw(st.integers(1, 12))
    shift, count = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 14))
    column = np.array(data.draw(st.lists(st.integers(-5, 5), min_size=n, max_size=n)), dtype=float)
    expected = [sum(column[t - j * shift] for j in range(count) if t >= j * shift) for t in range(n)]
    np.testing.assert_array_equal(shifted_sum(column, shift, count), expected)


STRATEGIES = [
    Identity(),
    SquareRoot(),
    SquareRoot(momentum=0.9, weight_decay=0.01),
    *(BandedSquareRoot(p) for p in (1, 3, 5)),
    BandedSquareRoot(4, momentum=0.5),
    *(BandedInverseSquareRoot(p) for p in (1, 2, 4)),
    BandedToeplitz(3, [1.0, 0.5, 0.25]),
    BandedToeplitz(3, [1.0, -0.5, 0.75]),
    BandedToeplitz(20, 0.9 ** np.arange(20)),
    *(Tree(12, decoder) for decoder in ("plain", "online", "full")),
    Tree(12, "plain", 5),
    Tree(12, "online", 3, completion=True),
    Tree(12, "full", 5, completion=True),
    Dense(np.tril(np.random.default_rng(3).uniform(size=(12, 12))) + np.eye(12)),
    Dense(np.tril(np.random.default_rng(4).normal(size=(12, 12))) + 3 * np.eye(12)),
]
# C^T C >= 0, and a closed form or a dynamic programme: exact under every schema.
EXACT = (Identity, SquareRoot, BandedSquareRoot, BandedInverseSquareRoot, Tree)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("schema", [*SCHEMAS, MinSep(12, 3)], ids=str)
def test_every_strategy_against_brute_force(strategy, schema):
    C = strategy.matrix(schema.iterations)
    sensitivity = strategy.sensitivity(schema)
    brute = scalar_sensitivity(C, schema)
    assert sensitivity >= brute
    if schema.max_participations <= 4:
        assert sensitivity >= vector_sensitivity(C, schema)
    if isinstance(strategy, EXACT):
        within(sensitivity, brute)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: banded_sensitivity(np.ones(6), 4, MinSep(6, 3)), "num_bands must be <= min_sep=3"),
        (lambda: toeplitz_sensitivity(np.array([1.0, 2.0]), MinSep(2, 1)), "non-increasing"),
        (lambda: toeplitz_sensitivity(np.array([1.0, -0.1]), MinSep(2, 1)), "non-negative"),
        (lambda: toeplitz_sensitivity(np.ones(3), MinSep(2, 1)), "first_column"),
        (lambda: largest_pattern_sum(np.array([1.0, -1.0]), MinSep(2, 1)), "values must be >= 0"),
        (lambda: largest_pattern_sum(np.ones(3), FixedEpoch(6, 2)), "values"),
        (lambda: gram_sensitivity(np.eye(3), MinSep(4, 1)), "gram"),
    ],
)
def test_closed_forms_name_the_condition_that_fails(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_oracles_differ():
    """Three columns with inner products -0.4: all alike, two against one, and vectors at 120 degrees."""
    schema, X = FixedEpoch(3, 3), 1.4 * np.eye(3) - 0.4
    C = np.linalg.cholesky(X[::-1, ::-1]).T[::-1, ::-1]
    np.testing.assert_allclose(C.T @ C, X, atol=1e-14)
    assert positive_sensitivity(C, schema) ** 2 == pytest.approx(3 - 6 * 0.4)
    assert scalar_sensitivity(C, schema) ** 2 == pytest.approx(3 + 2 * 0.4)
    assert vector_sensitivity(C, schema) ** 2 == pytest.approx(3 + 6 * 0.4 / 2)
    assert gram_sensitivity(X, schema) ** 2 == pytest.approx(3 + 6 * 0.4)


def test_oracle_by_hand():
    C = np.array([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [-3.0, 0.0, 1.0]])
    assert scalar_sensitivity(C, MinSep(3, 2)) == pytest.approx(np.sqrt(1 + 4 + 16))
    assert positive_sensitivity(C, MinSep(3, 2)) == pytest.approx(np.sqrt(1 + 4 + 9))
    assert list(itertools.islice(MinSep(3, 2).patterns(), 2)) == [(0,), (0, 2)]
