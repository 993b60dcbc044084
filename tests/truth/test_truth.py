"""The ground truth itself, against closed forms, quadrature and brute force that share no code with it."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mpmath import mp, mpc, mpf

from truth.composition import (
    DIGITS,
    Contour,
    Part,
    epsilon_of,
    gaussian_delta,
    laplace_delta,
    log_mgf,
    mixed_delta,
    mixed_epsilon,
    randomized_response_delta,
    saddle_of_epsilon,
    sampled_gaussian_delta,
    sampled_gaussian_step_delta,
)
from truth.generate import sampled

CASES = {case["name"]: case for case in json.loads(Path(__file__).with_name("compositions.json").read_text())}


@pytest.fixture(autouse=True)
def _precision() -> Any:
    with mp.workdps(DIGITS):
        yield


def agree(actual: Any, expected: Any, digits: int = 14) -> bool:
    return abs(mpf(actual) / mpf(expected) - 1) < mpf(10) ** -digits


def by_contour(parts: list[Part], direction: str, epsilon: Any, bend: float) -> mpf:
    saddle = saddle_of_epsilon(parts, direction, epsilon)
    return Contour(parts, direction, saddle, mpf(epsilon), bend).delta(mpf(epsilon))


@pytest.mark.parametrize(("epsilon", "bend"), [(0, 0.0), (1, 0.3), (4, 0.0), (9, 0.3)])
def test_contour_integral_is_the_gaussian_profile(epsilon: float, bend: float) -> None:
    parts = [{"kind": "gaussian", "noise_multiplier": 2.0, "count": 3}]
    assert agree(by_contour(parts, "remove", epsilon, bend), gaussian_delta(mp.sqrt(3) / 2, epsilon), 16)


def test_gaussian_profile_by_quadrature() -> None:
    mu, epsilon = mpf("0.7"), mpf("1.3")
    threshold = epsilon / mu + mu / 2
    lost = mp.quad(lambda x: mp.npdf(x, mu) - mp.exp(epsilon) * mp.npdf(x), mp.linspace(threshold, threshold + 16, 9))
    assert agree(gaussian_delta(mu, epsilon), lost, 20)


@pytest.mark.parametrize("direction", ["remove", "add"])
@pytest.mark.parametrize(("sigma", "q", "epsilon"), [(1.0, 0.1, 1.5), (0.5, 0.3, 0.2), (10.0, 0.9, 0.01)])
def test_one_sampled_step_by_quadrature(sigma: float, q: float, epsilon: float, direction: str) -> None:
    def density(x: mpf) -> mpf:
        return (1 - mpf(q)) * mp.npdf(x, 0, sigma) + mpf(q) * mp.npdf(x, 1, sigma)

    def excess(x: mpf) -> mpf:
        p, other = density(x), mp.npdf(x, 0, sigma)
        return p - mp.exp(epsilon) * other if direction == "remove" else other - mp.exp(epsilon) * p

    low, high = -14 * mpf(sigma), 1 + 14 * mpf(sigma)
    a, b = low, high
    if excess(a) * excess(b) < 0:
        for _ in range(130):
            middle = (a + b) / 2
            a, b = (middle, b) if (excess(middle) > 0) == (excess(a) > 0) else (a, middle)
        low, high = (a, high) if direction == "remove" else (low, a)
        expected = mp.quad(excess, mp.linspace(low, high, 21))
    else:
        expected = mpf(0)
    actual = sampled_gaussian_step_delta(sigma, q, epsilon, direction)
    assert actual == expected == 0 or agree(actual, expected, 18)


def test_contour_integral_meets_the_two_step_quadrature() -> None:
    """The hardest case for the contour: hardly any smoothing by composition."""
    parts = [sampled(2.0, 0.2, 2)]
    assert agree(by_contour(parts, "remove", 2, 0.5), mixed_delta(parts, 2, "remove"), 15)


@pytest.mark.parametrize("direction", ["remove", "add"])
def test_two_sampled_steps_by_quadrature_in_the_plane(direction: str) -> None:
    """Plain double integral of (p - e^epsilon q)_+ over both observations, split on the decision boundary."""
    s, q, epsilon = mpf("1.25"), mpf("0.25"), mpf("0.125")

    def ratio(x: mpf) -> mpf:
        return 1 - q + q * mp.exp((2 * x - 1) / (2 * s * s))

    def inner(x: mpf) -> mpf:
        edge = mp.exp(epsilon) / ratio(x) if direction == "remove" else mp.exp(-epsilon) / ratio(x)
        inside = (edge - 1 + q) / q
        low, high = -9 * s, 1 + 9 * s
        if inside > 0:
            y = s * s * mp.log(inside) + mpf(1) / 2
            low, high = (max(low, y), high) if direction == "remove" else (low, min(high, y))
        elif direction == "add":
            return mpf(0)

        def excess(y: mpf) -> mpf:
            both = first * ratio(y)
            gain = both - mp.exp(epsilon) if direction == "remove" else 1 - mp.exp(epsilon) * both
            return mp.exp(-((y / s) ** 2) / 2) * gain

        first, density = ratio(x), mp.npdf(x, 0, s) / (s * mp.sqrt(2 * mp.pi))
        return density * mp.quad(excess, mp.linspace(low, high, 3), method="gauss-legendre", maxdegree=4)

    with mp.workdps(13):
        turn = s * s * mp.log((mp.exp(epsilon if direction == "remove" else -epsilon) / (1 - q) - 1 + q) / q) + 0.5
        points = sorted([*mp.linspace(-9 * s, 1 + 9 * s, 5), turn])
        expected = mp.quad(inner, points, method="gauss-legendre", maxdegree=5)
    assert agree(sampled_gaussian_delta(1.25, 0.25, 2, epsilon, direction), expected, 10)


@pytest.mark.parametrize("z", [mpc(3, 0), mpc("0.5", 7), mpc(2, 40)])
def test_moment_generating_function_by_quadrature(z: Any) -> None:
    s, q = mpf("0.75"), mpf("0.125")
    order = 1 + z

    def integrand(x: mpf) -> Any:
        return mp.npdf(x, 0, s) * (1 - q + q * mp.exp((2 * x - 1) / (2 * s * s))) ** order

    expected = mp.quad(integrand, mp.linspace(-14 * s, z.real + 1 + 14 * s, 60))
    assert abs(mp.exp(log_mgf(sampled(0.75, 0.125, 1), z, "remove")) / expected - 1) < mpf(10) ** -22
    assert abs(mp.exp(log_mgf(sampled(0.75, 0.125, 1), -order, "add")) / expected - 1) < mpf(10) ** -22


def test_reversing_the_pair_and_the_sign_of_epsilon() -> None:
    epsilon = mpf("0.5")
    forward = sampled_gaussian_delta(1.5, 0.02, 300, -epsilon, "remove")
    backward = sampled_gaussian_delta(1.5, 0.02, 300, epsilon, "add")
    assert agree(forward, 1 - mp.exp(-epsilon) + mp.exp(-epsilon) * backward, 20)


@pytest.mark.parametrize("direction", ["remove", "add"])
def test_sampled_step_with_a_gaussian_by_quadrature(direction: str) -> None:
    s, q, epsilon = mpf("0.75"), mpf("0.0625"), mpf(1)
    sign = 1 if direction == "remove" else -1

    def integrand(x: mpf) -> mpf:
        ratio = 1 - q + q * mp.exp((2 * x - 1) / (2 * s * s))
        weight = ratio if direction == "remove" else 1
        return mp.npdf(x, 0, s) * weight * gaussian_delta(mpf("0.5"), epsilon - sign * mp.log(ratio))

    parts = [sampled(0.75, 0.0625, 1), {"kind": "gaussian", "noise_multiplier": 2.0, "count": 1}]
    expected = mp.quad(integrand, mp.linspace(-10 * s, 1 + 10 * s, 21))
    assert agree(mixed_delta(parts, epsilon, direction), expected, 15)


def averaged_over_laplace(profile: Callable[[mpf], mpf], b: float, epsilon: float, pieces: int = 5) -> mpf:
    """One more Laplace release: its loss is 1/b or -1/b, or (1 - 2 x) / b for a report x in (0, 1)."""
    b, epsilon = mpf(b), mpf(epsilon)
    kinks = [(1 - b * (epsilon - k / b)) / 2 for k in range(-8, 9)]
    points = sorted({*mp.linspace(0, 1, pieces), *(x for x in kinks if 0 < x < 1)})
    between = mp.quad(lambda x: mp.exp(-x / b) / (2 * b) * profile(epsilon - (1 - 2 * x) / b), points, maxdegree=6)
    return profile(epsilon - 1 / b) / 2 + mp.exp(-1 / b) / 2 * profile(epsilon + 1 / b) + between


def test_laplace_profiles_by_recursion() -> None:
    assert agree(laplace_delta(2.0, 1, 0.25), 1 - mp.exp(mpf("-0.125")), 25)
    for count, epsilon in [(2, 0.75), (4, 1.25), (5, 0.5)]:
        expected = averaged_over_laplace(lambda e, k=count - 1: laplace_delta(2.0, k, e), 2.0, epsilon)
        assert agree(laplace_delta(2.0, count, epsilon), expected, 20)


def test_laplace_with_a_gaussian_by_quadrature() -> None:
    parts = [
        {"kind": "gaussian", "noise_multiplier": 1.0, "count": 1},
        {"kind": "laplace", "noise_multiplier": 2.0, "count": 1},
    ]
    expected = averaged_over_laplace(lambda e: gaussian_delta(1, e), 2.0, 3.0)
    assert agree(mixed_delta(parts, 3), expected, 15)


@pytest.mark.parametrize(("noise_parameter", "num_buckets", "count"), [(0.5, 2, 7), (0.25, 3, 5), (0.9, 10, 4)])
def test_randomized_response_by_enumeration(noise_parameter: float, num_buckets: int, count: int) -> None:
    epsilon, uniform = mpf("0.375"), mpf(noise_parameter) / num_buckets
    p, q = ([uniform + (1 - mpf(noise_parameter)) * (k == true) for k in range(num_buckets)] for true in (0, 1))
    groups = [(p[0], q[0]), (p[1], q[1]), (sum(p[2:]), sum(q[2:]))]
    expected = mpf(0)
    for reports in itertools.product(groups, repeat=count):
        expected += max(mpf(0), mp.fprod(x for x, _ in reports) - mp.exp(epsilon) * mp.fprod(x for _, x in reports))
    assert agree(randomized_response_delta(noise_parameter, num_buckets, count, epsilon), expected, 25)


def test_epsilon_inverts_delta() -> None:
    assert agree(epsilon_of(lambda e: gaussian_delta(1, e), gaussian_delta(1, 3)), 3, 20)
    parts = [sampled(1.5, 0.02, 300)]
    epsilon = mixed_epsilon(parts, 1e-6, "remove")
    assert agree(epsilon, 1.2262042, 7)
    assert agree(mixed_delta(parts, epsilon, bend=0.0), 1e-6, 20)
    assert agree(mixed_epsilon(parts, 1e-6, "add"), 0.982159, 6)


@pytest.mark.parametrize("name", ["50_0.5_1e6", "0.4_0.1_1e5", "1_0.9_1e3", "response_0.9_10_50"])
def test_stored_cases(name: str) -> None:
    case = CASES[name]
    for direction in ("remove", "add"):
        again = mixed_delta(case["parts"], mpf(case["epsilon"]), direction, bend=0.2)
        stored = mpf(case[f"delta_{direction}"])
        assert again == stored == 0 or agree(again, stored, 15)


def test_table_is_complete_and_consistent() -> None:
    assert len(CASES) >= 45
    for case in CASES.values():
        deltas = {way: mpf(case[f"delta_{way}"] or 0) for way in ("remove", "add")}
        assert mpf(case["delta"]) == deltas[case["direction_of_max"]] == max(deltas.values()) > 0
        assert mpf(float(case["epsilon"])) == mpf(case["epsilon"]) >= 0
