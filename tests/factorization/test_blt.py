"""Buffered linear Toeplitz strategies against dense matrices, brute force over patterns and mpmath."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpkit.factorization import (
    FixedEpoch,
    MinSep,
    SingleParticipation,
    blt_forms,
    cooldown_schedule,
    from_matrix,
    momentum_sgd,
    prefix_sum,
)
from dpkit.factorization.blt import BufferedLinearToeplitz
from dpkit.factorization.sensitivity import toeplitz_majorant, toeplitz_sensitivity
from factorization.oracle import scalar_sensitivity
from mechanisms.exact import mp

COOLDOWN = np.interp(np.arange(60), [0, 45, 59], [1, 1, 0.05])
WORKLOADS = {
    "prefix sum": prefix_sum(),
    "momentum": momentum_sgd(0.9),
    "weight decay": momentum_sgd(0.5, 0.5, 0.1),
    "schedule": momentum_sgd(0.9, COOLDOWN, 1e-2),
    "schedule without momentum": momentum_sgd(0.0, COOLDOWN),
    "given": from_matrix(np.tril(np.random.default_rng(0).normal(size=(60, 60))) + 3 * np.eye(60)),
}
# (theta, omega): ordinary ones, decays near 1, a tiny and a zero scale, decay 0, one that oscillates (last).
PARAMETERS = [
    ([0.75], [0.5]),
    ([0.99390077, 0.86106826, 0.40418248], [0.13652613, 0.20989316, 0.15626641]),
    ([0.3, 0.999999, 0.9], [0.1, 0.001, 0.05]),
    ([0.9, 0.5], [1e-14, 0.2]),
    ([0.9, 0.5], [0.0, 0.2]),
    ([0.0, 0.6], [0.0, 0.3]),
    ([0.9, 0.1], [0.4, 0.5]),
]


@st.composite
def monotone(draw):
    """Parameters with theta >= 0, omega >= 0, sum(omega) <= 1."""
    theta = draw(st.lists(st.floats(0, 0.9999), min_size=1, max_size=3, unique=True))
    scale = np.array([draw(st.floats(0, 1)) for _ in theta])
    return BufferedLinearToeplitz(theta=theta, omega=scale / max(1.0, 1.0000001 * scale.sum()))


schemas = st.one_of(
    st.builds(SingleParticipation, st.integers(1, 12)),
    st.sampled_from([FixedEpoch(n, k) for n in range(1, 13) for k in range(1, n + 1) if n % k == 0]),
    st.builds(MinSep, st.integers(1, 12), st.integers(1, 13), st.one_of(st.none(), st.integers(1, 12))),
)


@pytest.mark.parametrize(("theta", "omega"), PARAMETERS)
def test_matrix_is_the_definition(theta, omega):
    strategy, n = BufferedLinearToeplitz(theta=theta, omega=omega), 30
    C = strategy.matrix(n)
    for t, s in itertools.product(range(n), repeat=2):
        value = sum(o * r ** (t - s - 1) for r, o in zip(theta, omega, strict=True)) if t > s else float(t == s)
        assert C[t, s] == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(strategy.inverse_matrix(n) @ C, np.eye(n), atol=1e-13)


@pytest.mark.parametrize(("theta", "omega"), PARAMETERS)
def test_inverse_is_the_streamed_noise(theta, omega):
    strategy, n = BufferedLinearToeplitz(theta=theta, omega=omega), 200
    z = np.random.default_rng(1).normal(size=n)
    buffers, streamed = np.zeros(len(theta)), np.empty(n)
    for t in range(n):
        streamed[t] = z[t] - np.dot(omega, buffers)
        buffers = np.array(theta) * buffers + streamed[t]
    np.testing.assert_allclose(strategy.inverse_matrix(n) @ z, streamed, atol=1e-12)


@pytest.mark.parametrize(("theta", "omega"), [p for p in PARAMETERS if 0 not in p[1]])
def test_inverse_strategy(theta, omega):
    strategy, n = BufferedLinearToeplitz(theta=theta, omega=omega), 100
    inverse = strategy.inverse()
    np.testing.assert_allclose(inverse.matrix(n) @ strategy.matrix(n), np.eye(n), atol=1e-12)
    eigenvalues = np.linalg.eigvals(np.diag(theta) - np.outer(omega, np.ones(len(theta))))
    np.testing.assert_allclose(np.sort(inverse.theta), np.sort(eigenvalues), atol=1e-13)
    back = inverse.inverse()
    order, back_order = np.argsort(theta), np.argsort(back.theta)
    np.testing.assert_allclose(back.theta[back_order], np.array(theta)[order], rtol=1e-12)
    np.testing.assert_allclose(back.omega[back_order], np.array(omega)[order], rtol=1e-9, atol=1e-15)


def test_inverse_leaves_out_buffers_of_scale_zero():
    inverse = BufferedLinearToeplitz(theta=[0.9, 0.75], omega=[0.0, 0.5]).inverse()
    assert inverse == BufferedLinearToeplitz(theta=[0.25], omega=[-0.5])


def test_inverse_parameters_are_accurate_next_to_one():
    s, omega = np.array([1e-10, 3e-10, 1e-6, 0.3]), np.array([1e-13, 1e-9, 1e-4, 0.2])
    s_hat, omega_hat = blt_forms.inverse_parameters(s, omega)
    with mp.workdps(80):
        theta_hat, exact_omega_hat = _exact_inverse([1 - mp.mpf(x) for x in s], [mp.mpf(o) for o in omega])
        for i in range(len(s)):
            assert abs(s_hat[i] / (1 - theta_hat[i]) - 1) < 1e-14
            assert abs(omega_hat[i] / exact_omega_hat[i] - 1) < 1e-13


def _exact_inverse(theta, omega):
    """(theta_hat, omega_hat), descending: the zeros of C, by bisection between its poles, and the residues of 1 / C."""
    theta_hat = []
    for bracket in itertools.pairwise([mp.mpf(0), *sorted(theta)]):
        low, high = bracket
        for _ in range(250):
            middle = (low + high) / 2
            positive = 1 + mp.fsum(o / (middle - t) for t, o in zip(theta, omega, strict=True)) > 0
            low, high = (middle, high) if positive else (low, middle)
        theta_hat.insert(0, low)
    slopes = [-mp.fsum(o / (x - t) ** 2 for t, o in zip(theta, omega, strict=True)) for x in theta_hat]
    return theta_hat, [1 / slope for slope in slopes]


@settings(max_examples=300)
@given(monotone(), schemas)
def test_sensitivity_is_the_largest_over_all_patterns(strategy, schema):
    C = strategy.matrix(schema.iterations)
    exact = max(np.linalg.norm(C[:, list(pattern)].sum(axis=1)) for pattern in schema.patterns())
    sensitivity = strategy.sensitivity(schema)
    assert exact * (1 - 1e-14) <= sensitivity <= exact * (1 + 1e-11)


@pytest.mark.parametrize(
    "schema",
    [SingleParticipation(2000), FixedEpoch(2000, 8), MinSep(2000, 300, 3), MinSep(2000, 1), MinSep(1999, 7)],
)
def test_sensitivity_of_long_runs(schema):
    for theta, omega in PARAMETERS[:-1]:
        strategy = BufferedLinearToeplitz(theta=theta, omega=omega)
        summed = np.zeros(schema.iterations)
        for i in range(0, schema.max_participations * schema.min_sep, schema.min_sep):
            summed[i:] += strategy.first_column(schema.iterations)[: schema.iterations - i]
        assert strategy.sensitivity(schema) == pytest.approx(np.linalg.norm(summed), rel=2e-11)


@pytest.mark.parametrize(("min_sep", "k"), [(10**8, 10), (3 * 10**7, 12), (2 * 10**9, 1), (1, 6)])
def test_a_billion_steps_against_mpmath(min_sep, k):
    n, theta, omega = 10**9, [1 - 1e-9, 1 - 1e-5, 0.5], [1e-4, 0.01, 0.3]
    strategy, schema = BufferedLinearToeplitz(theta=theta, omega=omega), MinSep(n, min_sep, k)
    with mp.workdps(60):
        theta, omega = [mp.mpf(t) for t in theta], [mp.mpf(o) for o in omega]
        square = mp.fsum(
            _inner_product(theta, omega, n - max(i, j) * min_sep, abs(i - j) * min_sep)
            for i in range(k)
            for j in range(k)
        )
        assert mp.sqrt(square) <= strategy.sensitivity(schema) <= mp.sqrt(square) * (1 + mp.mpf(1e-11))
        largest, mean = _prefix_errors(theta, omega, n)
        scale = mp.sqrt(square)
        assert abs(strategy.max_error(prefix_sum(), schema) / (scale * mp.sqrt(largest)) - 1) < 1e-11
        assert abs(strategy.rmse(prefix_sum(), schema) / (scale * mp.sqrt(mean)) - 1) < 1e-11


def _inner_product(theta, omega, length, shift):
    """Sum over t < length of c_t c_{t + shift}: the inner product of two columns of C."""
    later = [o * t ** (shift - 1) for t, o in zip(theta, omega, strict=True)] if shift else None
    pairs = mp.mpf(0)
    for (t, o), (r, p) in itertools.product(zip(theta, omega, strict=True), repeat=2):
        pairs += o * p * r**shift * (1 - (t * r) ** (length - 1)) / (1 - t * r)
    return (mp.fsum(later) if shift else 1) + pairs


def _prefix_errors(theta, omega, n):
    """(largest, mean) squared row norm of A C^-1, whose first column is a sum of powers of 1 and of theta_hat."""
    theta_hat, omega_hat = _exact_inverse(theta, omega)
    steady = 1 / (1 + mp.fsum(o / (1 - t) for t, o in zip(theta, omega, strict=True)))
    powers = [(mp.mpf(1), steady), *((t, -o / (1 - t)) for t, o in zip(theta_hat, omega_hat, strict=True))]
    largest = mean = mp.mpf(0)
    for (p, a), (q, b) in itertools.product(powers, repeat=2):
        r = p * q
        total = mp.mpf(n) if r == 1 else (1 - r**n) / (1 - r)
        largest += a * b * total
        mean += a * b * (mp.mpf(n + 1) / 2 if r == 1 else (n - r * total) / (1 - r) / n)
    return largest, mean


@pytest.mark.parametrize("n", [1, 2, 17, 1000, 10**6, 10**9])
@pytest.mark.parametrize("forgotten", [0.0, 1e-9, 1e-6, 1e-3, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99, 0.999999])
def test_errors_at_constant_rates_against_mpmath(n, forgotten, momentum):
    """Poles of all kinds: the decays of C^-1 apart, and one equal or next to alpha = 1 - forgotten or to beta."""
    workload, generator = momentum_sgd(momentum, 0.5, 2 * forgotten), np.random.default_rng(n)
    errors = blt_forms.SquaredErrors(blt_forms.constant_sgd(workload, n), n, np.array([0]))
    for pole in (None, 1 - momentum, forgotten, forgotten * (1 + 1e-9)):
        x = np.sort(np.exp(generator.uniform(-np.log(10 * n), 0, 4)))
        s, s_hat = x[::2], x[1::2].copy()
        if pole:
            s_hat[generator.integers(2)] = pole
        v = errors.points[:, None]
        inverse = np.prod((v + s) / (v + s_hat), axis=1)
        truth = _momentum_errors(s, s_hat, forgotten, momentum, n)
        for objective, square in zip(("max_error", "rmse"), truth, strict=True):
            assert abs(errors(inverse, objective)[0][0] / (square / 4) - 1) < 1e-11


def _momentum_errors(s, s_hat, forgotten, momentum, n):
    """(largest, mean) at rate 1 by partial fractions; 300 digits and shifts by 1e-60 keep poles apart."""
    with mp.workdps(300):
        zeros = [1 - mp.mpf(x) for x in s]
        poles = [1 - mp.mpf(forgotten), mp.mpf(momentum), *(1 - mp.mpf(x) for x in s_hat)]
        poles = [p + (i + 1) * mp.mpf(10) ** -60 for i, p in enumerate(poles)]
        powers = []
        for i, p in enumerate(poles):
            others = mp.fprod(p - q for j, q in enumerate(poles) if j != i)
            powers.append((p, p * mp.fprod(p - z for z in zeros) / others))
        largest = mean = mp.mpf(0)
        for (p, a), (q, b) in itertools.product(powers, repeat=2):
            total = (1 - (p * q) ** n) / (1 - p * q)
            largest += a * b * total
            mean += a * b * (n - p * q * total) / (1 - p * q) / n
        return largest, mean


def test_constant_rates_in_an_array_are_constant():
    schema, strategy = MinSep(60, 7), BufferedLinearToeplitz(theta=[0.9], omega=[0.2])
    array = momentum_sgd(0.9, np.full(80, 0.3), 0.1)
    assert strategy.rmse(array, schema) == strategy.rmse(momentum_sgd(0.9, 0.3, 0.1), schema)
    with pytest.raises(ValueError, match="learning_rates must cover every step"):
        strategy.rmse(momentum_sgd(0.9, np.full(50, 0.3)), schema)


def test_a_buffer_that_does_nothing_changes_no_error():
    """Its pole in C^-1 is next to another one's, which must not show."""
    alone = BufferedLinearToeplitz(theta=[0.995], omega=[0.994999995])
    more = BufferedLinearToeplitz(theta=[0.995, 6e-9], omega=[0.994999995, 1e-17])
    for workload in (momentum_sgd(0.99), momentum_sgd(0.9, cooldown_schedule(2000))):
        errors = alone.per_query_error(workload, 2000)
        np.testing.assert_allclose(more.per_query_error(workload, 2000), errors, rtol=1e-12)
        if workload.toeplitz(2000) is not None:
            B = workload.apply(np.linalg.inv(alone.matrix(2000)))
            np.testing.assert_allclose(errors, np.linalg.norm(B, axis=1), rtol=1e-11)
            rmse = np.sqrt(np.mean(errors**2)) * alone.sensitivity(SingleParticipation(2000))
            for strategy in (alone, more):
                assert strategy.rmse(workload, 2000) == pytest.approx(rmse, rel=1e-11)


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("n", [1, 2, 60])
def test_errors_are_those_of_dense_matrices(name, n):
    workload, schema = WORKLOADS[name], SingleParticipation(n)
    signed = ([0.9, -0.5], [0.3, -0.2])
    for theta, omega in [*PARAMETERS, signed, ([0.25], [-0.5])]:
        strategy = BufferedLinearToeplitz(theta=theta, omega=omega)
        C = strategy.matrix(n)
        dense = np.linalg.norm(np.linalg.solve(C.T, workload.matrix(n).T).T, axis=1)
        np.testing.assert_allclose(strategy.per_query_error(workload, n), dense, rtol=1e-9)
        if (theta, omega) != signed:
            scale = np.linalg.norm(C[:, 0])
            assert strategy.rmse(workload, schema) == pytest.approx(scale * np.sqrt(np.mean(dense**2)), rel=1e-9)
            assert strategy.max_error(workload, n) == pytest.approx(scale * np.max(dense), rel=1e-9)


def test_sensitivity_without_a_closed_form():
    """Exact for one participation, whatever the signs, and otherwise the bound that every Toeplitz strategy has."""
    single, several = SingleParticipation(10), MinSep(10, 3)
    for theta, omega in [([0.9, 0.5], [0.6, 0.6]), ([0.25], [-0.5]), ([0.9, 0.5], [0.6, -0.2]), ([-0.5], [0.5])]:
        strategy = BufferedLinearToeplitz(theta=theta, omega=omega)
        C = strategy.matrix(10)
        assert strategy.sensitivity(single) == pytest.approx(scalar_sensitivity(C, single), rel=1e-11)
        truth = scalar_sensitivity(C, several)
        assert truth < strategy.sensitivity(several)
        bound = toeplitz_sensitivity(toeplitz_majorant(strategy.first_column(10)), several)
        assert strategy.sensitivity(several) == pytest.approx(bound, rel=1e-11)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "theta and omega must be given together"),
        ({"theta": [0.5]}, "theta and omega must be given together"),
        ({"num_buffers": 0}, "num_buffers must be >= 1"),
        ({"num_buffers": 2, "theta": [0.5], "omega": [0.1]}, "num_buffers=2 entries each"),
        ({"theta": [0.5, 0.1], "omega": [0.1]}, "got 2 and 1"),
        ({"theta": [1.0], "omega": [0.1]}, "theta must be in"),
        ({"theta": [0.5, 0.5], "omega": [0.1, 0.2]}, "theta must be distinct"),
        ({"theta": [0.5], "omega": [np.nan]}, "omega must be finite"),
        (
            {"theta": [0.5], "omega": [-1e101]},
            "omega must .* have none > 1e.100, got 1.0 and 1e.101; rescale",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        BufferedLinearToeplitz(**arguments)


def test_inverses_that_are_refused():
    for theta, omega, message in [
        ([0.5], [1.6], "unstable"),
        ([0.9, 0.5], [0.1, -0.1], "one sign"),
        ([0.5], [0.0], "identity"),
    ]:
        with pytest.raises(ValueError, match=message):
            BufferedLinearToeplitz(theta=theta, omega=omega).inverse()
    with pytest.raises(ValueError, match="call optimize"):
        BufferedLinearToeplitz(num_buffers=2).matrix(4)
