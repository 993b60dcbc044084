"""Per-instance numbers: what they bound, and everything that refuses them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpkit import NeighboringRelation, mechanisms
from dpkit.accounting import PldAccountant, RdpAccountant, ZcdpAccountant, calibrate
from dpkit.mechanisms import (
    BudgetExceededError,
    Gaussian,
    PerInstanceFilter,
    PerInstanceRenyi,
    PoissonSampled,
    RectifiedGaussian,
    TruncatedGaussian,
)

ORDERS = (1.5, 4.0, 64.0, math.inf)
BOXES = [RectifiedGaussian(0.5, -1.0, 2.0), TruncatedGaussian(0.5, -1.0, 2.0)]


@given(st.floats(-4, 5), st.floats(0.01, 2), st.floats(-1, 1), st.booleans())
def test_every_change_within_kappa_is_covered(theta, kappa, part, reverse):
    for box in BOXES:
        bound = box.per_instance_rdp(theta, kappa, ORDERS)
        ends = (theta, theta + part * kappa)
        pair = box.renyi_divergence(ORDERS, *(ends[::-1] if reverse else ends))
        assert np.all(pair <= np.array(bound.divergences) * (1 + 1e-10) + 5e-324)


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_one_of_the_four_is_reached_and_coordinates_add_up(box):
    theta, kappa = 1.5, 0.75
    ways = [pair for s in (1, -1) for pair in ((theta, theta + s * kappa), (theta + s * kappa, theta))]
    truth = np.max([box.renyi_divergence(ORDERS, *way) for way in ways], axis=0)
    np.testing.assert_allclose(box.per_instance_rdp(theta, kappa, ORDERS).divergences, truth, rtol=1e-12)
    thetas, kappas = [0.0, 1.5, 1.5, 7.0], [0.1, 0.75, 0.75, 1.0]
    parts = [box.per_instance_rdp(t, k, ORDERS).divergences for t, k in zip(thetas, kappas, strict=True)]
    total = box.per_instance_rdp(thetas, kappas, ORDERS).divergences
    np.testing.assert_allclose(total, np.sum(parts, axis=0), rtol=1e-12)
    assert box.per_instance_rdp(thetas, 0.0, ORDERS).divergences == (0.0,) * 4


def test_never_above_the_worst_case_and_far_below_it_beyond_the_box():
    for box in BOXES:
        worst = box.rdp(ORDERS[:3], NeighboringRelation.ADD_OR_REMOVE_ONE)
        for theta in (-5.0, -1.0, 0.5, 2.0, 3.0):
            assert np.all(np.array(box.per_instance_rdp(theta, 1.0, ORDERS[:3]).divergences) <= worst * (1 + 1e-12))
        # Of small orders only: a large one reaches far into the tail, and so into the box again.
        assert box.per_instance_rdp(8.0, 1.0, ORDERS[:1]).divergences[0] < 0.2 * worst[0]


BOUND = BOXES[0].per_instance_rdp(0.0, 1.0, (2.0, 8.0))
FILTER = PerInstanceFilter(orders=(2.0, 8.0), budget=(1.0, 4.0))


@pytest.mark.parametrize("number", [BOUND, FILTER], ids=["divergences", "filter"])
@pytest.mark.parametrize(
    "use",
    [
        lambda x: mechanisms.compose(Gaussian(1.0), x),
        lambda x: mechanisms.repeat(x, 3),
        lambda x: mechanisms.group(x, 2),
        lambda x: PoissonSampled(x, 0.1),
        lambda x: PldAccountant().epsilon(x, delta=1e-5),
        lambda x: RdpAccountant().delta(x, epsilon=1.0),
        lambda x: ZcdpAccountant().epsilon(x, delta=1e-5),
        lambda x: calibrate(lambda _: x, RdpAccountant(), target_epsilon=1.0, target_delta=1e-5),
    ],
    ids=["compose", "repeat", "group", "sampled", "pld", "rdp", "zcdp", "calibrate"],
)
def test_nothing_takes_them_for_a_guarantee(number, use):
    with pytest.raises(ValueError, match="per-instance: not a DP guarantee for the mechanism"):
        use(number)


def test_they_say_what_they_are():
    assert BOUND.kind == FILTER.kind == "per-instance: not a DP guarantee for the mechanism"
    assert not isinstance(BOUND, mechanisms.Mechanism)
    with pytest.raises(TypeError):
        BOUND + BOUND  # type: ignore[operator]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 4)), max_size=30))
def test_no_order_is_ever_exceeded(releases):
    account, total = FILTER, np.zeros(2)
    for divergences in releases:
        release = PerInstanceRenyi((2.0, 8.0), divergences)
        if account.allows(release):
            account = account.charge(release)
            total += divergences
        else:
            with pytest.raises(BudgetExceededError, match="stop here, or leave the record out"):
                account.charge(release)
            assert np.any(total + divergences > np.array(FILTER.budget) * (1 - 1e-12))
    assert np.all(total <= np.array(FILTER.budget))
    assert np.all(total <= np.array(account.spent) * (1 + 1e-14))


def test_a_fine_release_does_not_slip_below_rounding():
    account = PerInstanceFilter((2.0,), (1.0,), spent=(1.0 - 2.0**-53,))
    account = account.charge(PerInstanceRenyi((2.0,), (1e-300,)))
    assert not account.allows(PerInstanceRenyi((2.0,), (1e-300,)))
    assert account.allows(PerInstanceRenyi((2.0,), (0.0,)))


BAD = [
    (lambda: PerInstanceRenyi((1.0,), (0.1,)), "orders must be numbers > 1"),
    (lambda: PerInstanceRenyi((math.nan,), (0.1,)), "orders must be numbers > 1"),
    (lambda: PerInstanceRenyi((), ()), "orders must be numbers > 1"),
    (lambda: PerInstanceRenyi((2.0,), (-0.1,)), "divergences must be >= 0, got -0.1"),
    (lambda: PerInstanceRenyi((2.0,), (math.nan,)), "divergences must be finite, got nan"),
    (lambda: PerInstanceRenyi((2.0,), (0.1, 0.2)), "one number for each of the 1 orders, got 2"),
    (lambda: PerInstanceFilter((2.0,), (-1.0,)), "budget must be >= 0"),
    (lambda: FILTER.charge(PerInstanceRenyi((2.0,), (0.1,))), "release must be a PerInstanceRenyi at orders"),
    (lambda: FILTER.allows(0.1), "release must be a PerInstanceRenyi"),  # type: ignore[arg-type]
    (lambda: BOXES[0].per_instance_rdp(math.nan, 1.0, [2.0]), "theta must be finite, got nan"),
    (lambda: BOXES[0].per_instance_rdp(0.0, -1.0, [2.0]), "kappa must be finite and >= 0"),
    (lambda: BOXES[0].per_instance_rdp(0.0, 1.0, [0.5]), "orders must be numbers > 1"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_infinite_divergences_are_allowed_and_never_fit():
    assert not FILTER.allows(PerInstanceRenyi((2.0, 8.0), (0.0, math.inf)))
