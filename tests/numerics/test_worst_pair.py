"""Branch and bound against every pair, and Renyi terms against 40 digits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpkit.numerics.worst_pair import HOCKEY_STICK, RENYI, Contest, worst_pair_reference, worst_profile, worst_renyi
from mechanisms.exact import finite_renyi, mp

ORDERS = np.array([1.0001, 1.5, 2.0, 7.5, 64.0, 1024.0, math.inf])
EPSILONS = np.array([0.0, 1e-6, 0.1, 1.0, 3.0])


def contest(seed: int, firsts: int, seconds: int, outcomes: int, spread: float):
    random = np.random.default_rng(seed)
    laws = [np.exp(spread * random.normal(size=(n, outcomes))) for n in (1, firsts, seconds)]
    reference, one, other = (np.log(law / law.sum(axis=1, keepdims=True)) for law in laws)
    arrays = reference[0], one - reference, other - reference
    return Contest.between(*arrays), arrays


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(2, 12),
    st.sampled_from([1e-6, 0.1, 3, 40]),
)
def test_nothing_left_alone_was_worse(seed, firsts, seconds, outcomes, spread):
    found, (reference, one, other) = contest(seed, firsts, seconds, outcomes, spread)
    with np.errstate(over="ignore", invalid="ignore"):
        truth = np.array([worst_pair_reference(RENYI, a, reference, one, other)[1] for a in ORDERS.tolist()])
    got = worst_renyi([found], ORDERS) * np.where(np.isinf(ORDERS), 1.0, ORDERS - 1)
    finite = np.isfinite(truth)
    np.testing.assert_allclose(got[finite], truth[finite], rtol=1e-9 if spread < 0.01 else 1e-11)
    values, tails = worst_profile([found], EPSILONS, np.zeros(len(EPSILONS)))
    for epsilon, value, tail in zip(EPSILONS.tolist(), values, tails, strict=True):
        every, most = worst_pair_reference(HOCKEY_STICK, epsilon, reference, one, other)
        assert value == pytest.approx(most, rel=1e-12)
        if most > 0:
            i, j = np.unravel_index(np.argmax(every), every.shape)
            above = one[i] - other[j] > epsilon
            assert tail == pytest.approx(np.exp(reference + other[j] + epsilon)[above].sum(), rel=1e-9)


@pytest.mark.parametrize("spread", [1e-7, 1e-3, 0.5, 5.0, 80.0])
def test_renyi_of_one_pair_is_exact(spread):
    found, (reference, one, other) = contest(1, 1, 1, 6, spread)
    got = worst_renyi([found], ORDERS[:-1])
    # The same floats, normalised by what they lack of 1 as laws: the function is an f-divergence of any two measures.
    for order, value in zip(ORDERS[:-1].tolist(), got.tolist(), strict=True):
        outcomes = [
            (mp.exp(mp.mpf(r) + mp.mpf(p)), mp.exp(mp.mpf(r) + mp.mpf(q)))
            for r, p, q in zip(reference.tolist(), one[0].tolist(), other[0].tolist(), strict=True)
        ]
        total_p, total_q = (mp.fsum(o[k] for o in outcomes) for k in (0, 1))
        truth = finite_renyi(order, [(p / total_p, q / total_q) for p, q in outcomes])
        # The totals differ from 1 by rounding, which tiny divergences feel in second order only.
        assert value == pytest.approx(float(truth), rel=1e-8 if spread < 1e-2 else 1e-11), order


def test_a_floor_is_returned_where_nothing_exceeds_it():
    found, _ = contest(2, 5, 5, 7, 1.0)
    values, tails = worst_profile([found], np.array([0.5, 0.5]), np.array([0.0, 0.99]))
    assert values[1] == 0.99
    assert np.isnan(tails[1])
    assert 0 < values[0] < 0.99
    assert not np.isnan(tails[0])


def test_several_contests_count_together():
    contests = [contest(seed, 3, 4, 6, 1.0)[0] for seed in range(4)]
    together = worst_renyi(contests, ORDERS)
    alone = np.max([worst_renyi([one], ORDERS) for one in contests], axis=0)
    np.testing.assert_allclose(together, alone, rtol=1e-13)
    assert worst_renyi(contests, 2.0).shape == ()
