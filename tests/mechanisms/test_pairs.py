"""Survival functions, advantages and profiles of every kind of pair against 60 digits, deep tails included.

A float threshold cannot be met exactly, so a probability may belong to any loss within `LOSS_ERROR` of the one asked
for; beyond that it must be as accurate as `relative_error` says, which is what the finite laws allow for.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dpkit import NeighboringRelation, mechanisms
from dpkit.mechanisms import DominatingPair, FinitePair, GaussianPair, LaplacePair, SampledPair
from dpkit.mechanisms.discrete_gaussian import DiscreteGaussianLaw
from dpkit.mechanisms.discretization import relative_error
from dpkit.mechanisms.finite_pair import DISJOINT, IDENTICAL
from dpkit.mechanisms.lattice_pair import LatticePair
from dpkit.mechanisms.mixture_of_gaussians import MixturePair
from dpkit.mechanisms.replaced_sample import ReplacedSamplePair
from dpkit.mechanisms.skellam import SkellamLaw
from dpkit.numerics.gaussian_mixture import log_likelihood_ratio
from examples import distinct_pairs
from mechanisms.exact import exact, mp

LOSS_ERROR = 8 * 2.0**-52
SMALLEST = 1e-290

# Where to look, as quantiles in units of the noise.
QUANTILES = np.array([-30.0, -8.0, -3.0, -1.0, -1e-6, 0.0, 1e-6, 0.5, 1.0, 5.0, 8.0, 30.0])


def _sampled_losses(base_losses: np.ndarray, q: float, adding: bool) -> np.ndarray:
    with np.errstate(over="ignore"):
        losses = np.log1p(q * np.expm1(base_losses))
    losses = losses[np.isfinite(losses)]
    return -losses if adding else losses


def _binomial(members: int, q: float) -> tuple[float, ...]:
    return tuple(math.comb(members, j) * q**j * (1 - q) ** (members - j) for j in range(members + 1))


def _cases() -> dict[str, tuple[DominatingPair, np.ndarray]]:
    cases: dict[str, tuple[DominatingPair, np.ndarray]] = {}
    for mu in (1e-6, 0.02, 1.0, 3.3, 10.0, 40.0):
        base, losses = GaussianPair(mu), mu * mu / 2 + mu * QUANTILES
        cases[f"gaussian-{mu}"] = base, losses
        for q in (1e-6, 1e-3, 0.5, 0.999):
            for adding in (False, True):
                sampled = SampledPair(base, q, adding=adding)
                cases[f"sampled-gaussian-{mu}-{q}-{adding}"] = sampled, _sampled_losses(losses, q, adding)
            x = (QUANTILES + np.where(QUANTILES > 0, mu, -mu)) * mu - mu * mu / 2
            losses_of_either = [np.log1p(q * np.expm1(np.clip(y, -700.0, 700.0))) for y in (x, -x - mu * mu)]
            replaced = losses_of_either[0] - losses_of_either[1]
            cases[f"replaced-sample-{mu}-{q}"] = ReplacedSamplePair(mu, q), replaced
    for pure in (1e-8, 0.3, 1.0, 20.0, 300.0):
        base = LaplacePair(pure)
        losses = pure * np.array([-1.1, -1.0, -0.999999, -0.5, -1e-9, 0.0, 1e-9, 0.5, 0.999999, 1.0])
        cases[f"laplace-{pure}"] = base, losses
        for q in (1e-6, 0.1, 0.999):
            for adding in (False, True):
                sampled = SampledPair(base, q, adding=adding)
                cases[f"sampled-laplace-{pure}-{q}-{adding}"] = sampled, _sampled_losses(losses[2:-1], q, adding)
    corners = [(1, 1.0, 0.01), (1, 50.0, 1e-6), (1, 0.1, 1e-6), (4, 1.0, 0.2), (49, 2.0, 0.01), (49, 20.0, 0.3)]
    for members, sigma, q in corners:
        # Away from 0 the loss has no floor.
        for shift in (0.0, 0.25):
            locations = tuple((j + shift) / sigma for j in range(members + 1))
            quantiles = QUANTILES[::3] if members > 10 else QUANTILES
            for adding in (False, True):
                pair = MixturePair(locations, _binomial(members, q), adding)
                x = quantiles * (1 if sigma > 0.5 else sigma)
                losses = log_likelihood_ratio(x, np.array(pair.locations), np.log(pair.weights))
                cases[f"mixture-{members + 1}-{sigma}-{q}-{shift}-{adding}"] = pair, -losses if adding else losses
    laws = [*map(DiscreteGaussianLaw, (0.5, 3.0, 40.0)), *map(SkellamLaw, (0.3, 9.0, 400.0))]
    for law, shift in itertools.product(laws, (1, 2, 7)):
        pair = LatticePair(law, shift)
        # Between two of its values: no float is one of them.
        values = pair.atoms
        losses = np.array([(values[i] + values[i + 1]) / 2 for i in range(0, len(values) - 1, 1 + len(values) // 8)])
        cases[f"{law}-{shift}"] = pair, losses
        cases[f"sampled-{law}-{shift}"] = SampledPair(pair, 0.1, adding=True), _sampled_losses(losses, 0.1, True)
    # Each outcome is as likely under Q as its mirror image under P.
    rest, tail = 0.25 * math.exp(-2.0), 0.1 * math.exp(-1e-9)
    finite = FinitePair((-2.0, -1e-9, 0.0, 1e-9, 2.0), (rest, tail, 0.65 - rest - tail, 0.1, 0.25))
    cases["finite"] = finite, np.array([-3.0, -2.0, -1.0, -1e-9, 0.0, 5e-10, 1e-9, 1.0, 2.0, 3.0])
    return cases


CASES = _cases()


def _miss(value: float, bounds: tuple[Any, Any]) -> float:
    """Relative distance of `value` from the interval between the two bounds."""
    low, high = min(bounds), max(bounds)
    value = mp.mpf(float(value))
    if low <= value <= high:
        return 0.0
    return float(max(low - value, value - high) / abs(high if value > high else low))


def _around(function: Callable[[Any], Any], loss: float) -> tuple[Any, Any]:
    return function(mp.mpf(loss) * (1 - LOSS_ERROR)), function(mp.mpf(loss) * (1 + LOSS_ERROR))


@pytest.mark.parametrize("name", CASES)
def test_pair_matches_its_definition_to_the_stated_accuracy(name):
    pair, losses = CASES[name]
    truth = exact(pair)
    below_p, below_q = pair.sf(losses)
    advantages = pair.advantage(losses)
    for loss, p, q, advantage in zip(losses.tolist(), below_p, below_q, advantages, strict=True):
        allowed = float(relative_error(np.array(max(p, SMALLEST))))
        sides = _around(truth.sf, loss)
        for value, bounds in [
            (p, (sides[0][0], sides[1][0])),
            (q, (sides[0][1], sides[1][1])),
            (advantage, _around(truth.advantage, loss)),
        ]:
            if max(bounds) > SMALLEST:
                assert _miss(value, bounds) <= float(relative_error(np.array(max(value, SMALLEST)))), loss
        delta = _around(truth.delta, loss)
        if max(delta) > SMALLEST:
            assert _miss(pair.delta(loss), delta) <= max(allowed, 1e-12), loss


@pytest.mark.parametrize("name", CASES)
def test_survival_functions_decrease_and_profiles_agree_with_them(name):
    pair, _ = CASES[name]
    check_consistency(pair, CASES[name][1])


@pytest.mark.parametrize(("name", "pair"), distinct_pairs().items(), ids=distinct_pairs())
def test_pairs_of_every_row_are_exact(name, pair):
    truth = exact(pair)
    for loss in (-0.7, -0.01, -1e-5, 0.0, 1e-5, 0.003, 0.2, 1.0, 3.0):
        p, q = truth.sf(mp.mpf(loss))
        value_p, value_q = pair.sf(loss)
        assert float(value_p) == pytest.approx(float(p), rel=1e-10, abs=1e-290), name
        assert float(value_q) == pytest.approx(float(q), rel=1e-10, abs=1e-290), name
        assert pair.delta(loss) == pytest.approx(float(truth.delta(loss)), rel=1e-9, abs=1e-290), name


def check_consistency(pair: DominatingPair, losses: np.ndarray) -> None:
    """What any pair must satisfy, whatever it describes."""
    losses = np.sort(losses)
    p, q = pair.sf(losses)
    for tail in (p, q):
        assert np.all((tail >= 0) & (tail <= 1 + 1e-15))
        assert np.all(np.diff(tail) <= 1e-14 * tail[:-1])
    advantage = pair.advantage(losses)
    np.testing.assert_allclose(advantage, p - q, rtol=0, atol=1e-14)
    for loss, gain, above in zip(losses.tolist(), advantage, q, strict=True):
        delta = pair.delta(loss)
        assert -1e-300 <= delta <= 1 + 1e-13
        if loss < 700:
            assert delta == pytest.approx(
                gain - math.expm1(loss) * above, rel=1e-9, abs=3e-14 * (1 + math.exp(loss) * above)
            )


@pytest.mark.parametrize("adding", [False, True])
@pytest.mark.parametrize(
    ("mechanism", "overlap"),
    [
        (mechanisms.Gaussian(0.0), 0.0),
        (mechanisms.RandomizedResponse(0.0, 2), 0.5),
        (mechanisms.RandomizedResponse(0.0, 4), 0.25),
    ],
    ids=["no-noise", "response-2", "response-4"],
)
def test_sampling_a_release_that_only_one_world_can_make(mechanism, overlap, adding):
    # Present: the outcome is certain. Absent: it has probability `overlap`.
    q = 0.3
    step = mechanisms.PoissonSampled(mechanism, q)
    pair = step.dominating_pairs(NeighboringRelation.REPLACE_SPECIAL)[int(adding)]
    with_unit, without = [q + (1 - q) * overlap, (1 - q) * (1 - overlap)], [overlap, 1 - overlap]
    p, other = (without, with_unit) if adding else (with_unit, without)
    for loss in (-2.0, -0.4, -0.36, -0.35, -0.1, 0.0, 0.1, 0.3, 0.36, 2.0):
        above = [i for i in range(2) if p[i] > math.exp(loss) * other[i]]
        value_p, value_q = pair.sf(loss)
        assert float(value_p) == pytest.approx(sum(p[i] for i in above), abs=1e-12), loss
        assert float(value_q) == pytest.approx(sum(other[i] for i in above), abs=1e-12), loss
        assert float(pair.advantage(loss)) == pytest.approx(sum(p[i] - other[i] for i in above), abs=1e-12), loss
        assert pair.delta(loss) == pytest.approx(sum(p[i] - math.exp(loss) * other[i] for i in above), abs=1e-12), loss
    losses = [math.log(a / b) for a, b in zip(p, other, strict=True) if a > 0 and b > 0]
    assert pair.infinite_mass == pytest.approx(sum(a for a, b in zip(p, other, strict=True) if b == 0))
    assert pair.loss_range[0] <= min(losses) + 1e-12
    assert pair.loss_range[1] >= max(losses) - 1e-12
    assert pair.atoms == pytest.approx(sorted(losses))


def test_trivial_pairs():
    assert [float(x) for x in DISJOINT.sf(5.0)] == [1.0, 0.0]
    assert DISJOINT.delta(100.0) == 1.0
    assert IDENTICAL.delta(0.0) == 0.0
    assert IDENTICAL.delta(-1.0) == pytest.approx(-math.expm1(-1.0), rel=1e-15)


@pytest.mark.parametrize("sampling_probability", [1e-6, 0.3, 0.999])
def test_sampled_pairs_compare_by_value(sampling_probability):
    one, two = (SampledPair(GaussianPair(1.0), sampling_probability, adding=True) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != SampledPair(GaussianPair(1.0), sampling_probability, adding=False)
    assert one != GaussianPair(1.0)


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2, 2.5, 3.0])
@pytest.mark.parametrize("lengths", [(1.0, 1.0), (1.0, 0.4), (0.0, 1.0)])
@pytest.mark.parametrize(("mu", "q"), [(0.6, 0.3), (1.5, 0.05)])
def test_replacing_is_worst_between_opposite_contributions(angle, lengths, mu, q):
    """Contributions in the plane at any angle are no easier to tell apart than mu and -mu on a line."""
    grid = np.arange(-9.0, 9.0, 0.02)
    first, second = np.meshgrid(grid, grid)

    def density(x: float, y: float) -> np.ndarray:
        return np.exp(-((first - x) ** 2 + (second - y) ** 2) / 2) * 0.02**2 / (2 * math.pi)

    one, other = mu * lengths[0], mu * lengths[1]
    p = (1 - q) * density(0, 0) + q * density(one, 0)
    p_other = (1 - q) * density(0, 0) + q * density(other * math.cos(angle), other * math.sin(angle))
    for epsilon in (-0.8, -0.05, 0.0, 0.02, 0.3, 1.0):
        divergence = float(np.maximum(p - math.exp(epsilon) * p_other, 0.0).sum())
        # The sum over the grid is accurate to the square of its step at the kink.
        assert divergence <= ReplacedSamplePair(mu, q).delta(epsilon) * (1 + 1e-4) + 1e-9
