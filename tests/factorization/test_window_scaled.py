"""Scaled windows: sensitivities by brute force, errors by dense matrices, optima against those without scales."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize as scipy_optimize

from dpkit import factorization as fz
from dpkit.factorization import toeplitz_solver
from dpkit.factorization.forms import Buffers
from factorization.oracle import scalar_sensitivity, vector_sensitivity

COOLDOWN = fz.cooldown_schedule(40)
WORKLOADS = {
    "prefix sum": fz.prefix_sum(),
    "momentum": fz.momentum_sgd(0.9, weight_decay=0.01),
    "schedule": fz.momentum_sgd(0.9, COOLDOWN, 0.01),
    "given": fz.from_matrix(np.tril(np.random.default_rng(0).normal(size=(40, 40))) + 3 * np.eye(40)),
}
STRATEGIES = [
    fz.Identity(),
    fz.SquareRoot(),
    fz.BandedSquareRoot(3),
    fz.BandedInverseSquareRoot(4),
    fz.BandedToeplitz(3, [1.0, -0.5, 0.2]),
    fz.BandedToeplitz(3, [1.0, 0.5, 0.7]),
    fz.BufferedLinearToeplitz(theta=[0.95, 0.5], omega=[0.1, 0.2]),
    fz.BufferedLinearToeplitz(theta=[0.5, 0.3], omega=[0.3, -0.2]),
]


@st.composite
def scaled(draw, coefficients):
    """Any windows and scales, of a Toeplitz matrix of one to twelve bands."""
    scales = np.cumprod([draw(st.floats(0.1, 1)) for _ in range(draw(st.integers(1, 6)))])
    c = np.array(draw(st.lists(coefficients, min_size=0, max_size=11)))
    return c, draw(st.integers(1, 8)), scales


schemas = st.one_of(
    st.builds(fz.SingleParticipation, st.integers(1, 12)),
    st.sampled_from([fz.FixedEpoch(n, k) for n in range(1, 13) for k in range(1, n + 1) if n % k == 0]),
    st.builds(fz.MinSep, st.integers(1, 12), st.integers(1, 13), st.one_of(st.none(), st.integers(1, 12))),
)


@settings(max_examples=300)
@given(scaled(st.floats(0, 1)), schemas)
@example((np.array([1.0, 1.0]), 3, np.array([1.0, 0.5, 0.1])), fz.MinSep(11, 2, 3))
def test_sensitivity_of_a_monotone_column_is_exact(strategy, schema):
    descents, window, scales = strategy
    c = np.append(1.0, np.cumprod(descents))
    strategy = fz.WindowScaled(fz.BandedToeplitz(len(c), c), window, scales)
    truth = scalar_sensitivity(strategy.matrix(schema.iterations), schema)
    assert truth * (1 - 1e-14) <= strategy.sensitivity(schema) <= truth * (1 + 1e-11)


@settings(max_examples=300)
@given(scaled(st.floats(-2, 2)), schemas)
def test_sensitivity_of_any_column_is_a_bound_and_exact_where_columns_are_disjoint(strategy, schema):
    tail, window, scales = strategy
    c = np.append(1.0, tail)
    strategy = fz.WindowScaled(fz.BandedToeplitz(len(c), c), window, scales)
    truth = scalar_sensitivity(strategy.matrix(schema.iterations), schema)
    found = strategy.sensitivity(schema)
    assert truth * (1 - 1e-14) <= found
    if schema.max_participations == 1 or len(c) <= schema.min_sep:
        assert found <= truth * (1 + 1e-11)


@settings(max_examples=200)
@given(st.data(), schemas)
def test_closed_form_of_buffers_is_exact_in_any_windows(data, schema):
    theta = data.draw(st.lists(st.floats(0, 0.9999), min_size=1, max_size=3, unique=True))
    omega = np.array([data.draw(st.floats(0, 0.33)) for _ in theta])
    scales = np.cumprod([data.draw(st.floats(0.1, 1)) for _ in range(data.draw(st.integers(1, 6)))])
    window = data.draw(st.sampled_from([schema.min_sep, 2 * schema.min_sep, 3]))
    strategy = fz.WindowScaled(fz.BufferedLinearToeplitz(theta=theta, omega=omega), window, scales)
    truth = scalar_sensitivity(strategy.matrix(schema.iterations), schema)
    assert truth * (1 - 1e-14) <= strategy.sensitivity(schema) <= truth * (1 + 1e-11)


@pytest.mark.parametrize("schema", [fz.MinSep(9, 2, 3), fz.FixedEpoch(9, 3), fz.MinSep(7, 1)], ids=str)
def test_vector_contributions_do_not_exceed_it(schema):
    for strategy in STRATEGIES:
        scaled = fz.WindowScaled(strategy, schema.min_sep, [1.0, 0.8, 0.3])
        assert vector_sensitivity(scaled.matrix(schema.iterations), schema) <= scaled.sensitivity(schema)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_inverse_matrix(strategy, n):
    scaled = fz.WindowScaled(strategy, 4, [1.0, 0.7, 0.7, 0.1])
    C = np.array([1.0, 0.7, 0.7, 0.1])[np.minimum(np.arange(n) // 4, 3)][:, None] * strategy.matrix(n)
    np.testing.assert_allclose(scaled.matrix(n), C, rtol=1e-15)
    np.testing.assert_allclose(scaled.inverse_matrix(n) @ C, np.eye(n), atol=1e-11)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("scales", [[1.0], [2.0, 1.5, 1.5, 0.1]], ids=str)
def test_errors_are_those_of_the_dense_factorization(strategy, name, scales):
    workload, scaled = WORKLOADS[name], fz.WindowScaled(strategy, 7, scales)
    for n in (1, 2, 40):
        C = scaled.matrix(n)
        dense = np.linalg.norm(np.linalg.solve(C.T, workload.matrix(n).T).T, axis=1)
        np.testing.assert_allclose(scaled.per_query_error(workload, n), dense, rtol=1e-9)
        schema = fz.MinSep(n, 7)
        sensitivity = scaled.sensitivity(schema)
        assert scaled.rmse(workload, schema) == pytest.approx(sensitivity * np.sqrt(np.mean(dense**2)), rel=1e-9)
        assert scaled.max_error(workload, schema) == pytest.approx(sensitivity * np.max(dense), rel=1e-9)
        if workload.toeplitz(n) is not None:
            assert np.all(np.diff(dense) >= -1e-12 * dense[-1])


@pytest.mark.parametrize("strategy", [fz.Identity(), fz.BandedSquareRoot(8)], ids=str)
def test_errors_of_a_long_schedule_need_no_matrix(strategy):
    n = 20_000  # More than a dense matrix is made for.
    workload = fz.momentum_sgd(0.9, fz.cooldown_schedule(n))
    plain = strategy.per_query_error(workload, n)
    scaled = fz.WindowScaled(strategy, 5_000, [1.0, 1.0, 0.5]).per_query_error(workload, n)
    np.testing.assert_allclose(scaled[:10_000], plain[:10_000], rtol=1e-12)
    assert np.all(scaled[10_000:] > plain[10_000:])
    B = workload.apply(strategy.inverse_matrix(500))
    np.testing.assert_allclose(plain[:500], np.linalg.norm(B, axis=1), rtol=1e-9)


def test_a_billion_steps_need_no_array_of_them():
    """With two equal halves against the sum of the halves' closed forms: the noise of the second is twice as large."""
    n, strategy = 10**9, fz.BufferedLinearToeplitz(theta=[1 - 1e-7, 0.9], omega=[1e-4, 0.05])
    scaled = fz.WindowScaled(strategy, n // 2, [1.0, 0.5])
    # All noise once, and that of the second half, which makes a run of n / 2 steps of its own, three times more.
    whole, half = (strategy._squared_errors(fz.prefix_sum(), m) for m in (n, n // 2))
    mean, largest = scaled._squared_errors(fz.prefix_sum(), n)
    assert mean == pytest.approx(whole[0] + 3 * half[0] / 2, rel=1e-11)
    assert largest == pytest.approx(whole[1] + 3 * half[1], rel=1e-11)
    # One participation: the square of the first half, and a quarter of the rest.
    whole, half = (strategy.sensitivity(fz.SingleParticipation(m)) ** 2 for m in (n, n // 2))
    schema = fz.MinSep(n, n // 2, 1)
    assert scaled.strategy.sensitivity(schema) ** 2 == pytest.approx(whole, rel=1e-11)
    twice = fz.MinSep(n, n // 2, 2)
    plain = strategy.sensitivity(twice) ** 2
    # The second half holds what two participations add to the first half's square.
    assert scaled.sensitivity(twice) ** 2 == pytest.approx(half + (plain - half) / 4, rel=1e-11)


def test_the_last_scale_lasts():
    short, long = (fz.WindowScaled(fz.SquareRoot(), 5, [1.0, *[0.5] * m]) for m in (1, 7))
    np.testing.assert_array_equal(short.matrix(40), long.matrix(40))
    schema = fz.MinSep(40, 5)
    assert short.sensitivity(schema) == pytest.approx(long.sensitivity(schema), rel=1e-14)
    assert short.rmse(fz.prefix_sum(), schema) == pytest.approx(long.rmse(fz.prefix_sum(), schema), rel=1e-14)


def test_form_is_that_of_the_strategy_with_scales():
    strategy = fz.BufferedLinearToeplitz(theta=[0.9], omega=[0.2])
    form = fz.WindowScaled(strategy, 5, [1.0, 0.5]).form(20)
    assert isinstance(form, Buffers)
    assert (form.window, list(form.scales), form.copies, form.iterations) == (5, [1.0, 0.5], 1, 20)


@pytest.mark.parametrize("objective", ["rmse", "max_error"])
@pytest.mark.parametrize("schema", [fz.MinSep(40, 10), fz.FixedEpoch(40, 8), fz.MinSep(40, 9, 3)], ids=str)
@pytest.mark.parametrize("name", WORKLOADS)
def test_scales_of_a_given_strategy_are_the_best(objective, schema, name):
    workload = WORKLOADS[name]
    for strategy in (fz.Identity(), fz.SquareRoot(), fz.BandedToeplitz(3, [1.0, -0.5, 0.2])):
        if objective == "max_error" and workload.toeplitz(40) is None:
            with pytest.raises(ValueError, match="workload must be Toeplitz to scale windows"):
                fz.optimize(fz.WindowScaled(fz.Identity()), workload, schema, objective=objective)
            continue
        scaled = toeplitz_solver.best_scaled(strategy, workload, schema, objective)
        best = getattr(scaled, objective)(workload, schema)
        assert best <= getattr(strategy, objective)(workload, schema) * (1 + 1e-12)

        def of(descents, strategy=strategy):
            scales = np.exp(-np.cumsum(np.append(0.0, np.abs(descents))))
            return getattr(fz.WindowScaled(strategy, schema.min_sep, scales), objective)(workload, schema)

        start = np.full(schema.max_participations - 1, 0.1)
        found = scipy_optimize.minimize(of, start, method="Nelder-Mead", options={"maxfev": 300})
        assert best <= found.fun * (1 + 1e-9)


@pytest.mark.parametrize(
    "family", [fz.BandedToeplitz(10), fz.BandedToeplitz(25), fz.BufferedLinearToeplitz(2)], ids=str
)
@pytest.mark.parametrize("schema", [fz.MinSep(40, 10), fz.MinSep(40, 9, 3), fz.SingleParticipation(40)], ids=str)
@pytest.mark.parametrize("name", [name for name in WORKLOADS if name != "given"])
@pytest.mark.parametrize("objective", ["rmse", "max_error"])
def test_joint_optimum_is_no_worse_than_one_after_the_other(family, schema, name, objective):
    workload = WORKLOADS[name]
    if objective == "max_error" and workload.toeplitz(40) is None and schema.max_participations > 1:
        with pytest.raises(ValueError, match="workload must be Toeplitz to scale windows"):
            fz.optimize(fz.WindowScaled(family), workload, schema, objective=objective)
        return
    plain = fz.optimize(family, workload, schema, objective=objective)
    joint = fz.optimize(fz.WindowScaled(family), workload, schema, objective=objective)
    after = toeplitz_solver.best_scaled(plain.strategy, workload, schema, objective)
    best, unscaled = getattr(joint, objective), getattr(plain, objective)
    assert best <= getattr(after, objective)(workload, schema) * (1 + 1e-9)
    assert best <= unscaled * (1 + 1e-9)
    if objective == "rmse" and schema == fz.MinSep(40, 10):
        # The run has no room for more participations than count, so the windows are of one length, and later ones less
        # seen. With room to spare, or for the last query alone, equal scales can be the best.
        assert best < 0.999 * unscaled


@pytest.mark.parametrize("family", [fz.BandedToeplitz(3), fz.BufferedLinearToeplitz(1)], ids=str)
@pytest.mark.parametrize("objective", ["rmse", "max_error"])
def test_joint_optimum_is_not_beaten_by_a_direct_search(family, objective):
    schema, workload = fz.MinSep(12, 4), fz.prefix_sum()
    solution = fz.optimize(fz.WindowScaled(family), workload, schema, objective=objective)
    assert solution.converged

    def of(x):
        scales = np.exp(-np.cumsum(np.append(0.0, np.abs(x[:2]))))
        if isinstance(family, fz.BandedToeplitz):
            strategy = fz.BandedToeplitz(3, np.append(1.0, x[2:]))
        else:
            theta = 0.999 / (1 + np.exp(-x[2]))
            strategy = fz.BufferedLinearToeplitz(theta=[theta], omega=[theta / (1 + np.exp(-x[3]))])
        return getattr(fz.WindowScaled(strategy, 4, scales), objective)(workload, schema)

    start = np.array([0.1, 0.1, 0.5, 0.3])
    found = scipy_optimize.minimize(of, start, method="Nelder-Mead", options={"maxfev": 3000, "xatol": 1e-7})
    assert getattr(solution, objective) == pytest.approx(found.fun, rel=1e-6)


@pytest.mark.parametrize(
    ("strategy", "unscaled", "least_gain"),
    [
        (fz.Identity(), 78.4793, 0.052),
        (fz.BandedToeplitz(342), 8.8041, 0.0079),
        (fz.BufferedLinearToeplitz(3), 9.1713, 0.0109),
    ],
    ids=str,
)
def test_gain_at_the_published_setting(strategy, unscaled, least_gain):
    """Unscaled values as published for these families; independent noise's is sqrt(k (n + 1) / 2)."""
    schema = fz.MinSep(2052, 342, 6)
    plain = fz.optimize(strategy, fz.prefix_sum(), schema).rmse
    assert plain == pytest.approx(unscaled, abs=6e-5)
    assert fz.optimize(fz.WindowScaled(strategy), fz.prefix_sum(), schema).rmse <= plain * (1 - least_gain)


def test_independent_noise_is_near_the_best_norms_of_single_columns():
    """One scale per window against the certified optimum over one norm per column, of the same schema."""
    schema = fz.FixedEpoch(1024, 8)
    scaled = fz.optimize(fz.WindowScaled(fz.Identity()), fz.prefix_sum(), schema).rmse
    free = fz.optimize(fz.Banded(1), fz.prefix_sum(), schema).rmse
    assert free <= scaled <= 1.003 * free
    assert scaled <= 0.95 * np.sqrt(8 * 1025 / 2)


def test_a_billion_steps_are_optimised():
    schema = fz.MinSep(10**9, 10**7, 100)
    plain = fz.optimize(fz.BufferedLinearToeplitz(2), fz.prefix_sum(), schema).rmse
    assert fz.optimize(fz.WindowScaled(fz.BufferedLinearToeplitz(2)), fz.prefix_sum(), schema).rmse < 0.99 * plain


def test_a_matrix_too_large_to_scale_is_refused():
    n = 20_000
    schema, workload = fz.MinSep(n, n // 4), fz.momentum_sgd(0.9, fz.cooldown_schedule(n))
    with pytest.raises(ValueError, match="n must be <= 16384 for a dense matrix, got 20000"):
        fz.optimize(fz.WindowScaled(fz.SquareRoot()), workload, schema)
    # Toeplitz workloads and few bands need no such matrix.
    for strategy, other in [(fz.SquareRoot(), fz.momentum_sgd(0.9)), (fz.BandedSquareRoot(4), workload)]:
        assert fz.optimize(fz.WindowScaled(strategy), other, schema).rmse < strategy.rmse(other, schema)


@pytest.mark.parametrize(("coefficient", "scale"), [(1e-100, 1e-50), (1e100, 1e50)])
def test_the_most_extreme_scales_and_coefficients_have_a_sensitivity(coefficient, scale):
    strategy = fz.WindowScaled(fz.BandedToeplitz(2, [coefficient, coefficient]), 1, [scale])
    assert strategy.sensitivity(fz.MinSep(4, 2)) == pytest.approx(2 * coefficient * scale, rel=1e-11)


@pytest.mark.parametrize("family", [fz.BandedToeplitz(25), fz.BufferedLinearToeplitz(2)], ids=str)
def test_callback_stops_the_search(family):
    seen = []

    def callback(progress):
        seen.append(progress)
        return True

    solution = fz.optimize(fz.WindowScaled(family), fz.prefix_sum(), fz.MinSep(40, 9, 3), callback=callback)
    assert len(seen) == 1
    assert not solution.converged
    assert "callback" in solution.message
    # What was found so far has the best scales already.
    assert solution.rmse <= seen[0].error * (1 + 1e-9)
    again = fz.optimize(solution.strategy, fz.prefix_sum(), fz.MinSep(40, 9, 3))
    assert again.converged
    assert again.rmse <= solution.rmse * (1 + 1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fz.WindowScaled(fz.Banded(2)), "strategy must be a Toeplitz strategy"),
        (lambda: fz.WindowScaled(fz.Identity(), 3), "window and scales must be given together"),
        (lambda: fz.WindowScaled(fz.Identity(), scales=[1.0]), "window and scales must be given together"),
        (lambda: fz.WindowScaled(fz.Identity(), 0, [1.0]), "window must be >= 1"),
        (lambda: fz.WindowScaled(fz.Identity(), 3, [1.0, 1.1]), "scales must not increase"),
        (lambda: fz.WindowScaled(fz.Identity(), 3, [1.0, 0.0]), "scales must be between"),
        (lambda: fz.WindowScaled(fz.Identity(), 3, [1e-51]), "scales must be between"),
        (lambda: fz.WindowScaled(fz.Identity(), 3, [1e51, 1.0]), "scales must be between"),
        (lambda: fz.WindowScaled(fz.Identity(), 3, [np.nan]), "scales must be finite"),
        (lambda: fz.WindowScaled(fz.Identity()).matrix(3), "call optimize"),
        (lambda: fz.WindowScaled(fz.Identity()).sensitivity(fz.MinSep(3, 1)), "call optimize"),
        (lambda: fz.WindowScaled(fz.BandedToeplitz(2), 3, [1.0]).matrix(3), "call optimize"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()
