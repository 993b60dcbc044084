"""Strategies to JAX Privacy and back: the same matrices, sensitivities and errors on both sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_privacy.matrix_factorization import banded, buffered_toeplitz, sensitivity, streaming_matrix, toeplitz

from dpkit import factorization as fz
from dpkit.interop.jax_privacy import from_jax_privacy, to_jax_privacy

N = 40
SCHEMAS = {
    "single": fz.SingleParticipation(N),
    "epochs": fz.FixedEpoch(iterations=N, epochs=4),
    "apart": fz.MinSep(iterations=N, min_sep=9, max_participations=3),
}

BLTS = {
    "one": fz.BufferedLinearToeplitz(theta=[0.75], omega=[0.5]),
    "two": fz.BufferedLinearToeplitz(theta=[0.5, 0.97], omega=[0.2, 0.1]),
    "optimal": fz.optimize(fz.BufferedLinearToeplitz(num_buffers=3), fz.prefix_sum(), SCHEMAS["epochs"]).strategy,
}
COEFFICIENTS = {
    "one": [0.7],
    "square-root": fz.BandedSquareRoot(num_bands=6).first_column(6),
    "optimal": fz.optimize(fz.BandedToeplitz(num_bands=5), fz.prefix_sum(), SCHEMAS["apart"]).strategy.coefficients,
}
BANDED = {
    "one": fz.Banded(num_bands=1, coefficients=np.ones((N, 1))),
    "optimal": fz.optimize(fz.Banded(num_bands=6, column_norms="equal"), fz.prefix_sum(), SCHEMAS["apart"]).strategy,
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def assert_equal(ours, theirs):
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-12, atol=1e-12)


def noise_matrix(matrix: streaming_matrix.StreamingMatrix) -> np.ndarray:
    return np.asarray(matrix @ jnp.eye(N))


def assert_sensitivity(ours: float, theirs: float):
    """Ours is the same number, rounded up by 1e-12 of it at most a few times over."""
    assert theirs * (1 - 1e-14) <= ours <= theirs * (1 + 4e-12)


def their_sensitivity(coefs, schema) -> float:
    squared = toeplitz.minsep_sensitivity_squared(
        jnp.asarray(coefs), min_sep=schema.min_sep, max_participations=schema.max_participations, n=N
    )
    return float(squared) ** 0.5


# ---- buffered linear Toeplitz ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BLTS)
def test_buffered_toeplitz(name):
    ours = BLTS[name]
    theirs = to_jax_privacy(ours)
    assert theirs.dtype == jnp.float64
    assert np.all(np.diff(theirs.buf_decay) < 0)
    assert_equal(ours.matrix(N), theirs.materialize(N))
    assert_equal(ours.inverse_matrix(N), noise_matrix(theirs.inverse_as_streaming_matrix()))
    again = from_jax_privacy(theirs)
    assert dict(zip(again.theta, again.omega, strict=True)) == dict(zip(ours.theta, ours.omega, strict=True))


@pytest.mark.parametrize("name", BLTS)
def test_buffered_toeplitz_sensitivity_and_error(name):
    ours = BLTS[name]
    theirs = to_jax_privacy(ours)
    single = float(buffered_toeplitz.sensitivity_squared(theirs, N)) ** 0.5
    assert_sensitivity(ours.sensitivity(SCHEMAS["single"]), single)
    for schema in SCHEMAS.values():
        coefs = theirs.toeplitz_coefs(N)
        assert_sensitivity(ours.sensitivity(schema), their_sensitivity(coefs, schema))
    squared = toeplitz.per_query_error(strategy_coef=theirs.toeplitz_coefs(N))
    assert_equal(ours.per_query_error(fz.prefix_sum(), N), squared**0.5)
    # Their inverse is found from eigenvectors, to fewer digits.
    largest = float(buffered_toeplitz.max_error(theirs.inverse(), N)) ** 0.5
    assert ours.per_query_error(fz.prefix_sum(), N)[-1] == pytest.approx(largest, rel=1e-6)


def test_their_own_buffers_are_taken_over():
    theirs = buffered_toeplitz.BufferedToeplitz.from_rational_approx_to_sqrt_x(num_buffers=3, max_buf_decay=0.999)
    ours = from_jax_privacy(theirs)
    np.testing.assert_array_equal(ours.theta, theirs.buf_decay)
    np.testing.assert_array_equal(ours.omega, theirs.output_scale)
    assert_equal(ours.matrix(N), theirs.materialize(N))


def test_float32_parameters_are_taken_digit_for_digit():
    theirs = buffered_toeplitz.BufferedToeplitz.build([0.7, 0.3], [0.1, 0.2], dtype=jnp.float32)
    ours = from_jax_privacy(theirs)
    np.testing.assert_array_equal(ours.theta, np.float64(np.float32([0.7, 0.3])))
    np.testing.assert_array_equal(ours.omega, np.float64(np.float32([0.1, 0.2])))


def test_a_decay_of_one_is_refused():
    with pytest.raises(ValueError, match="theta must be in"):
        from_jax_privacy(buffered_toeplitz.BufferedToeplitz.build([1.0], [0.1]))


def test_export_does_not_need_float64_to_be_on():
    with jax.enable_x64(False):
        theirs = to_jax_privacy(BLTS["two"])
    assert theirs.buf_decay.dtype == jnp.float64
    assert_equal(BLTS["two"].matrix(N), theirs.materialize(N))


# ---- banded Toeplitz -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_toeplitz_coefficients(name):
    ours = from_jax_privacy(jnp.asarray(COEFFICIENTS[name]))
    assert ours == fz.BandedToeplitz(num_bands=len(COEFFICIENTS[name]), coefficients=COEFFICIENTS[name])
    coefs = to_jax_privacy(ours)
    np.testing.assert_array_equal(coefs, COEFFICIENTS[name])
    assert coefs.dtype == np.float64
    assert_equal(ours.matrix(N), toeplitz.materialize_lower_triangular(coefs, N))
    assert_equal(ours.inverse_matrix(N), noise_matrix(toeplitz.inverse_as_streaming_matrix(coefs)))
    for schema in SCHEMAS.values():
        assert_sensitivity(ours.sensitivity(schema), their_sensitivity(coefs, schema))
    squared = toeplitz.per_query_error(strategy_coef=coefs, n=N)
    assert_equal(ours.per_query_error(fz.prefix_sum(), N), squared**0.5)


def test_their_own_coefficients():
    coefs = toeplitz.optimal_max_error_strategy_coefs(8)
    assert_equal(from_jax_privacy(coefs).matrix(N), fz.BandedSquareRoot(num_bands=8).matrix(N))


# ---- banded ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BANDED)
def test_banded(name):
    ours = BANDED[name]
    theirs = to_jax_privacy(ours)
    assert_equal(ours.matrix(N), theirs.materialize())
    assert_equal(ours.inverse_matrix(N), noise_matrix(theirs.inverse_as_streaming_matrix()))
    assert_equal(from_jax_privacy(theirs).matrix(N), ours.matrix(N))
    for schema in SCHEMAS.values():
        squared = banded.minsep_sensitivity_squared(
            theirs, min_sep=max(schema.min_sep, theirs.bands), max_participations=schema.max_participations
        )
        assert_sensitivity(ours.sensitivity(schema), float(squared) ** 0.5)
    expected = jnp.linalg.norm(jnp.tri(N) @ jnp.linalg.inv(theirs.materialize()), axis=1)
    assert_equal(ours.per_query_error(fz.prefix_sum(), N), expected)


@pytest.mark.parametrize("seed", range(3))
def test_any_column_normalized_banded_matrix_is_taken_over(seed):
    rng = np.random.default_rng(seed)
    params = rng.normal(size=(N, 4))
    params[:, 0] = rng.uniform(0.5, 3.0, size=N)
    theirs = banded.ColumnNormalizedBanded(params=jnp.asarray(params))  # Its last entries lie below the matrix.
    ours = from_jax_privacy(theirs)
    assert_equal(ours.matrix(N), theirs.materialize())
    schema = SCHEMAS["apart"]
    expected = sensitivity.get_sensitivity_banded(
        theirs.materialize(), min_sep=schema.min_sep, max_participations=schema.max_participations
    )
    assert_sensitivity(ours.sensitivity(schema), float(expected))
    assert_equal(to_jax_privacy(ours).materialize(), theirs.materialize())


def test_their_default_banded_strategy():
    theirs = banded.ColumnNormalizedBanded.default(N, 5)
    assert_equal(from_jax_privacy(theirs).matrix(N), theirs.materialize())


def test_columns_of_other_norms_are_refused():
    with pytest.raises(ValueError, match="columns of C must have norm 1"):
        to_jax_privacy(fz.Banded(num_bands=1, coefficients=np.linspace(1.0, 0.9, N)[:, None]))


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", [fz.Tree(iterations=8), fz.Identity(), fz.SquareRoot()], ids=["tree", "identity", "square-root"]
)
def test_other_strategies_are_refused_by_name(strategy):
    with pytest.raises(ValueError, match="JAX Privacy has no form for"):
        to_jax_privacy(strategy)


@pytest.mark.parametrize(
    "family",
    [fz.BufferedLinearToeplitz(num_buffers=2), fz.Banded(num_bands=2), fz.BandedToeplitz(num_bands=2)],
    ids=["blt", "banded", "banded-toeplitz"],
)
def test_a_family_without_parameters_is_refused(family):
    with pytest.raises(ValueError, match="call optimize"):
        to_jax_privacy(family)


@pytest.mark.parametrize("bad", [np.eye(3), 1.0, streaming_matrix.prefix_sum(), "blt"])
def test_what_is_no_strategy_is_refused(bad):
    with pytest.raises(ValueError, match="strategy must be a BufferedToeplitz"):
        from_jax_privacy(bad)
