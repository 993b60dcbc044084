"""What every strategy owes to those who use it, whichever it is."""

import numpy as np
import pytest

from dpkit import factorization as fz
from factorization.oracle import scalar_sensitivity, vector_sensitivity
from strategies import LENGTH, SCHEMAS, by_name

WORKLOADS = [fz.prefix_sum(), fz.momentum_sgd(0.9, fz.cooldown_schedule(LENGTH), weight_decay=0.01)]


@pytest.mark.parametrize("row", **by_name())
@pytest.mark.parametrize("n", [1, 2, 7, LENGTH])
def test_the_inverse_matrix_is_one(row, n):
    C, inverse = row.strategy.matrix(n), row.strategy.inverse_matrix(n)
    assert C.shape == inverse.T.shape
    assert C.shape[1] == n
    np.testing.assert_allclose(inverse @ C, np.eye(n), atol=1e-11)


@pytest.mark.parametrize("row", **by_name())
def test_no_step_waits_for_a_later_one(row):
    C, inverse = row.strategy.matrix(LENGTH), row.strategy.inverse_matrix(LENGTH)
    # Row r of C is known once the last step it holds has happened; step t may only use noise of rows known by then.
    known = np.max(np.where(C != 0, np.arange(LENGTH), -1), axis=1)
    assert not np.any(inverse[known > np.arange(LENGTH)[:, None]])


@pytest.mark.parametrize("row", **by_name())
@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_sensitivity_is_at_least_the_brute_force(row, schema):
    C, found = row.strategy.matrix(schema.iterations), row.strategy.sensitivity(schema)
    truth = scalar_sensitivity(C, schema)
    assert found >= truth
    assert found >= vector_sensitivity(C, schema)
    if row.exact:
        assert found == pytest.approx(truth, rel=1e-10)


@pytest.mark.parametrize("row", **by_name())
def test_a_shorter_run_is_no_more_sensitive(row):
    found = [row.strategy.sensitivity(fz.MinSep(n, 16)) for n in range(1, LENGTH + 1, 7)]
    assert np.all(np.diff(found) >= -1e-12)


@pytest.mark.parametrize("row", **by_name())
@pytest.mark.parametrize("workload", WORKLOADS, ids=["prefix_sum", "momentum"])
def test_errors_are_those_of_the_dense_factorization(row, workload):
    schema = fz.MinSep(LENGTH, 16)
    errors = np.linalg.norm(workload.matrix(LENGTH) @ row.strategy.inverse_matrix(LENGTH), axis=1)
    np.testing.assert_allclose(row.strategy.per_query_error(workload, LENGTH), errors, rtol=1e-9)
    sensitivity = row.strategy.sensitivity(schema)
    assert row.strategy.rmse(workload, schema) == pytest.approx(sensitivity * np.sqrt(np.mean(errors**2)), rel=1e-9)
    assert row.strategy.max_error(workload, schema) == pytest.approx(sensitivity * np.max(errors), rel=1e-9)


@pytest.mark.parametrize("row", **by_name())
def test_a_file_gives_back_the_same_strategy(row, tmp_path):
    schema = fz.MinSep(LENGTH, 16)
    fz.save(tmp_path / "strategy.npz", row.strategy, schema)
    found = fz.load(tmp_path / "strategy.npz")
    assert (found.strategy, found.schema) == (row.strategy, schema)
    assert found.sensitivity == row.strategy.sensitivity(schema)
    np.testing.assert_array_equal(found.strategy.matrix(LENGTH), row.strategy.matrix(LENGTH))


FIXED = [fz.Identity(), fz.SquareRoot(), fz.BandedSquareRoot(3), fz.BandedInverseSquareRoot(3), fz.Tree(iterations=12)]


@pytest.mark.parametrize("strategy", FIXED, ids=str)
def test_optimize_evaluates_what_leaves_nothing_to_choose(strategy):
    schema, workload = fz.MinSep(12, 4), fz.momentum_sgd(0.5)
    found = fz.optimize(strategy, workload, schema)
    errors = np.linalg.norm(workload.matrix(12) @ strategy.inverse_matrix(12), axis=1) * strategy.sensitivity(schema)
    assert (found.strategy, found.iterations, found.gap) == (strategy, 0, None)
    assert found.rmse == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-12)
    assert found.max_error == pytest.approx(np.max(errors), rel=1e-12)
    assert found.converged


@pytest.mark.parametrize("scale", [1e-170, 1e150])
@pytest.mark.parametrize(
    "make",
    [
        lambda scale: fz.Banded(1, coefficients=[[scale], [1.0]]),
        lambda scale: fz.BandedToeplitz(2, [scale, 0.5]),
        lambda scale: fz.Dense([[scale, 0.0], [0.0, 1.0]]),
    ],
    ids=["Banded", "BandedToeplitz", "Dense"],
)
def test_coefficients_whose_squares_vanish_or_overflow_are_refused(make, scale):
    # The sensitivity would be 0 or infinite for a matrix that is neither.
    with pytest.raises(ValueError, match=r"coefficients .*rescale"):
        make(scale)
