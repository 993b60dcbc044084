"""Banded strategies against every pattern and dense matrices."""

import numpy as np
import pytest

from dpkit import factorization as fz
from dpkit.factorization.banded import verify
from factorization.oracle import scalar_sensitivity

WORKLOADS = {
    "prefix sum": fz.prefix_sum(),
    "momentum": fz.momentum_sgd(momentum=0.9),
    "cool-down": fz.momentum_sgd(momentum=0.0, learning_rates=fz.cooldown_schedule(64, fraction=0.5)),
    "everything": fz.momentum_sgd(momentum=0.95, learning_rates=np.linspace(1.0, 0.1, 64), weight_decay=0.01),
    "weight decay": fz.momentum_sgd(momentum=0.0, weight_decay=0.1),
    "matrix": fz.from_matrix(np.tril(np.random.default_rng(0).random((64, 64))) + np.eye(64)),
}
SCHEMAS = [
    fz.SingleParticipation(7),
    fz.FixedEpoch(12, 3),
    fz.MinSep(12, 4),
    fz.MinSep(11, 3, 2),
    fz.MinSep(10, 3),
    fz.MinSep(9, 2, 3),
]


def random_banded(n, num_bands, seed=0):
    rng = np.random.default_rng(seed)
    C = rng.normal(size=(n, num_bands)) * 0.4
    C[:, 0] = 0.5 + rng.random(n)
    C[np.arange(num_bands) > np.arange(n)[:, None]] = 0
    return fz.Banded(num_bands=num_bands, coefficients=C)


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_sensitivity_is_exact_over_all_patterns_and_signs_where_columns_do_not_overlap(schema):
    for seed in range(5):
        num_bands = schema.iterations if schema.max_participations == 1 else schema.min_sep
        strategy = random_banded(schema.iterations, num_bands, seed)
        truth = scalar_sensitivity(strategy.matrix(schema.iterations), schema)
        assert truth <= strategy.sensitivity(schema) <= truth * (1 + 1e-11)


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_sensitivity_is_an_upper_bound_where_columns_overlap(schema):
    for seed in range(5):
        strategy = random_banded(schema.iterations, min(schema.min_sep + 2, schema.iterations), seed)
        truth = scalar_sensitivity(strategy.matrix(schema.iterations), schema)
        assert truth <= strategy.sensitivity(schema) <= 2 * truth


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("num_bands", [1, 2, 5, 20])
def test_errors_are_those_of_dense_matrices(name, num_bands):
    workload, n = WORKLOADS[name], 20
    strategy = random_banded(n, num_bands)
    B = workload.matrix(n) @ np.linalg.inv(strategy.matrix(n))
    np.testing.assert_allclose(strategy.per_query_error(workload, n), np.linalg.norm(B, axis=1), rtol=1e-10)
    schema = fz.MinSep(n, 5)
    root = np.sqrt(np.mean(np.sum(B**2, axis=1)))
    assert strategy.rmse(workload, schema) == pytest.approx(strategy.sensitivity(schema) * root, rel=1e-10)


def test_a_singular_workload_has_errors_too():
    A = np.tril(np.ones((6, 6)))
    A[3, 3] = 0
    strategy = random_banded(6, 3)
    B = A @ np.linalg.inv(strategy.matrix(6))
    np.testing.assert_allclose(strategy.per_query_error(fz.from_matrix(A), 6), np.linalg.norm(B, axis=1), rtol=1e-10)


def test_fewer_iterations_use_the_leading_block():
    strategy = random_banded(12, 4)
    np.testing.assert_array_equal(strategy.matrix(7), strategy.matrix(12)[:7, :7])
    np.testing.assert_array_equal(strategy.matrix(2), strategy.matrix(12)[:2, :2])
    expected = np.sum(strategy.matrix(7) ** 2, axis=0)
    np.testing.assert_allclose(strategy.squared_column_norms(7), expected, rtol=1e-14)
    inverse = strategy.inverse_matrix(7)
    np.testing.assert_allclose(inverse @ strategy.matrix(7), np.eye(7), atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_bands": 0}, "num_bands must be >= 1"),
        ({"num_bands": 2, "column_norms": "free"}, "column_norms must be"),
        ({"num_bands": 2, "coefficients": [[1.0], [1.0]]}, "shape"),
        ({"num_bands": 1, "coefficients": [[1.0], [-1.0]]}, "diagonal of C, must be > 0"),
        ({"num_bands": 2, "coefficients": [[1.0, 0.5], [1.0, 0.5]]}, "no column before the first"),
        ({"num_bands": 1, "coefficients": [[np.nan]]}, "finite"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fz.Banded(**arguments)


def test_a_family_and_a_longer_run_are_refused():
    with pytest.raises(ValueError, match="call optimize"):
        fz.Banded(num_bands=2).matrix(3)
    with pytest.raises(ValueError, match="optimize for the longer run"):
        random_banded(5, 2).sensitivity(fz.SingleParticipation(6))


def test_verification_notices_wrong_norms_and_wrong_errors():
    schema, workload = fz.SingleParticipation(8), fz.prefix_sum()
    strategy = random_banded(8, 3)
    unit = strategy.coefficients / np.max(np.linalg.norm(strategy.matrix(8), axis=0))
    fitting = fz.Banded(num_bands=3, coefficients=unit)
    variances = fitting.per_query_error(workload, 8) ** 2
    verify(fitting, variances, workload, schema)
    with pytest.raises(RuntimeError, match="column norms"):
        verify(fz.Banded(num_bands=3, coefficients=1.001 * unit), variances, workload, schema)
    with pytest.raises(RuntimeError, match="column norms"):
        verify(fz.Banded(3, "equal", unit), variances, workload, schema)
    with pytest.raises(RuntimeError, match="errors"):
        verify(fitting, variances * (1 + 1e-6), workload, schema)


def test_verification_of_a_long_run_looks_at_single_rows():
    schema, workload = fz.SingleParticipation(3_000), fz.momentum_sgd(momentum=0.9)
    rows = np.tile([0.8, 0.6], (3_000, 1))
    rows[0, 1] = 0
    strategy = fz.Banded(2, coefficients=rows)
    variances = strategy.per_query_error(workload, 3_000) ** 2
    verify(strategy, variances, workload, schema)
    variances[-1] *= 1 + 1e-6
    with pytest.raises(RuntimeError, match="errors"):
        verify(strategy, variances, workload, schema)
