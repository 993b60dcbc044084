"""One-run audits against mechanisms whose outcomes are enumerated, coin by coin."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from dpkit import audit

EPSILONS = [0.0, 0.3, 1.0, 2.5]


def bound(m, r, v, epsilon, delta):
    """The theorem's formula, term by term."""
    law = [math.comb(r, k) * math.exp(epsilon * k) / (1 + math.exp(epsilon)) ** r for k in range(r + 1)]
    worst = max((math.fsum(law[v - i : v]) / i for i in range(1, v + 1)), default=0.0)
    return min(1.0, math.fsum(law[v:]) + 2 * m * delta * worst)


@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.01])
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize(("m", "r"), [(1, 1), (10, 4), (40, 40)])
def test_the_p_value_is_the_formula(m, r, epsilon, delta):
    for v in range(r + 1):
        found = audit.one_run_p_value(m, r, v, epsilon=epsilon, delta=delta)
        assert found == pytest.approx(bound(m, r, v, epsilon, delta), rel=1e-10, abs=1e-15)


# Mechanisms on m coins: outcome -> probability, and a guess for each outcome. Guesses are 1, 0 or None.


def responses(coins, epsilon):
    """Randomized response on each coin."""
    right = 1 / (1 + math.exp(-epsilon))
    for answers in itertools.product((0, 1), repeat=len(coins)):
        yield answers, math.prod(right if a == c else 1 - right for a, c in zip(answers, coins, strict=True))


def plain(coins, epsilon, delta):  # noqa: ARG001
    yield from responses(coins, epsilon)


def each_revealed(coins, epsilon, delta):
    """Each coin is revealed with probability delta."""
    for shown in itertools.product((False, True), repeat=len(coins)):
        chance = math.prod(delta if s else 1 - delta for s in shown)
        for answers, p in responses(coins, epsilon):
            agree = all(a == c for a, c, s in zip(answers, coins, shown, strict=True) if s)
            # A revealed coin's answer is the coin: its own probability is divided out.
            right = 1 / (1 + math.exp(-epsilon))
            if agree:
                yield (answers, shown), chance * p / right ** sum(shown)


def all_revealed(coins, epsilon, delta):
    """All coins are revealed at once with probability delta."""
    for answers, p in responses(coins, epsilon):
        yield (answers, False), (1 - delta) * p
    yield (tuple(coins), True), delta


def one_named(coins, epsilon, delta):
    """One coin, chosen at random, is revealed with probability m delta; the others as always."""
    m = len(coins)
    right = 1 / (1 + math.exp(-epsilon))
    for answers, p in responses(coins, epsilon):
        yield (answers, None), (1 - m * delta) * p
        for i in range(m):
            if answers[i] == coins[i]:
                yield (answers, i), delta * p / right


MECHANISMS = [plain, each_revealed, all_revealed, one_named]


def law(mechanism, coins, epsilon, delta):
    found = {}
    for outcome, p in mechanism(coins, epsilon, delta):
        found[outcome] = found.get(outcome, 0.0) + p
    assert math.fsum(found.values()) == pytest.approx(1, abs=1e-12)
    return found


def guesses(outcome):
    return outcome if isinstance(outcome[0], int) else outcome[0]


def tail(mechanism, m, epsilon, delta):
    """P[at least v correct guesses], v = 0, ..., m, over fair coins."""
    chances = np.zeros(m + 1)
    for coins in itertools.product((0, 1), repeat=m):
        for outcome, p in law(mechanism, coins, epsilon, delta).items():
            chances[sum(g == c for g, c in zip(guesses(outcome), coins, strict=True))] += p / 2**m
    return np.cumsum(chances[::-1])[::-1]


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_mechanisms_are_private(mechanism, epsilon):
    m, delta = 3, 0.05
    for coins in itertools.product((0, 1), repeat=m):
        for i in range(m):
            other = tuple(1 - c if i == j else c for j, c in enumerate(coins))
            first, second = law(mechanism, coins, epsilon, delta), law(mechanism, other, epsilon, delta)
            excess = math.fsum(max(0.0, p - math.exp(epsilon) * second.get(o, 0.0)) for o, p in first.items())
            assert excess <= delta + 1e-12


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("delta", [0.003, 0.05])
def test_no_mechanism_beats_its_p_value(mechanism, epsilon, delta):
    m = 4
    reached = tail(mechanism, m, epsilon, delta)
    allowed = [audit.one_run_p_value(m, m, v, epsilon=epsilon, delta=delta) for v in range(m + 1)]
    assert (reached <= np.array(allowed) + 1e-12).all()


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_randomized_response_attains_it(epsilon):
    m = 5
    reached = tail(plain, m, epsilon, 0.0)
    allowed = [audit.one_run_p_value(m, m, v, epsilon=epsilon, delta=0.0) for v in range(m + 1)]
    np.testing.assert_allclose(reached, allowed, rtol=1e-12)
    # So a smaller epsilon's would be beaten.
    if epsilon:
        assert reached[m] > audit.one_run_p_value(m, m, m, epsilon=0.9 * epsilon, delta=0.0)


def test_revealing_one_coin_needs_the_second_term():
    reached = tail(one_named, 4, 0.0, 0.05)
    assert (reached[1:] > [audit.one_run_p_value(4, 4, v, epsilon=0.0, delta=0.0) for v in range(1, 5)]).any()


@pytest.mark.parametrize("delta", [0.0, 1e-4])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_bound_is_too_high_as_rarely_as_it_says(epsilon, delta, confidence):
    # The exact probability: how many guesses are right is binomial when each coin is revealed with probability delta.
    r = 60
    right = delta + (1 - delta) / (1 + math.exp(-epsilon))
    found = [audit.audit_guesses(r, r, v, delta=delta, confidence=confidence).epsilon_lower for v in range(r + 1)]
    too_high = np.array(found) > epsilon
    missed = stats.binom.pmf(np.arange(r + 1), r, right)[too_high].sum()
    assert missed <= 1 - confidence
    # Not far from what is allowed either, as far as whole numbers go.
    assert missed > (1 - confidence) / 5
    assert (np.diff(found) >= 0).all()
    assert found[r // 2] == 0


def test_the_bound_is_the_last_epsilon_that_is_rejected():
    for v, delta in ((95, 0.0), (95, 1e-5), (70, 1e-4), (100, 1e-5)):
        found = audit.audit_guesses(1_000, 100, v, delta=delta, confidence=0.95)
        below, above = (
            audit.one_run_p_value(1_000, 100, v, epsilon=found.epsilon_lower * factor, delta=delta)
            for factor in (1.0, 1 + 1e-9)
        )
        assert below <= 0.05 < above
    # All right, delta 0: e^epsilon / (1 + e^epsilon) = 0.05^(1/100).
    y = 0.05 ** (1 / 100)
    assert audit.audit_guesses(100, 100, 100, delta=0.0).epsilon_lower == pytest.approx(math.log(y / (1 - y)))


def test_more_of_what_proves_less_gives_less():
    def lower(m=1_000, r=100, v=90, delta=1e-5, confidence=0.95):
        return audit.audit_guesses(m, r, v, delta=delta, confidence=confidence).epsilon_lower

    assert lower() > lower(v=89) > lower(v=80) > lower(v=50) == 0
    assert lower() > lower(r=101) > lower(r=110)
    assert lower(delta=0.0) > lower() > lower(delta=4e-4) > 0
    assert lower() > lower(m=10_000)
    assert lower() > lower(confidence=0.99)
    assert lower(r=0, v=0) == 0
    curve = [audit.one_run_p_value(100, 50, 40, epsilon=e, delta=5e-3) for e in np.linspace(0, 6, 61)]
    assert (np.diff(curve) >= 0).all()


def test_canaries_of_extreme_scores_are_guessed():
    scores = np.array([5.0, -3.0, 0.1, 4.0, -2.0, 0.0])
    coins = np.array([True, False, False, True, True, False])
    found = audit.audit_canaries(scores, coins, guesses=4, delta=0.0)
    assert found.method == "one run, 3 of 4 guesses correct"
    assert (found.samples, found.confidence) == (6, 0.95)
    odd = audit.audit_canaries(scores, coins, guesses=3, delta=0.0)  # two highest, one lowest
    assert odd.method == "one run, 3 of 3 guesses correct"
    assert audit.audit_canaries(scores, coins, guesses=1, delta=0.0).method == "one run, 1 of 1 guesses correct"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((10, 11, 5), "guesses"),
        ((10, 5, 6), "correct"),
        ((0, 0, 0), "canaries"),
        ((10, 5, -1), "correct"),
        ((10, 5.5, 1), "guesses"),
    ],
)
def test_impossible_counts_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        audit.audit_guesses(*arguments, delta=0.0)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"at most 1 / \(2 canaries\) = 0.05, got 0.1"):
        audit.audit_guesses(10, 5, 5, delta=0.1)
    with pytest.raises(ValueError, match="confidence"):
        audit.audit_guesses(10, 5, 5, delta=0.0, confidence=1.0)
    with pytest.raises(ValueError, match="epsilon"):
        audit.one_run_p_value(10, 5, 5, epsilon=-1.0, delta=0.0)
    coins = np.array([True, False])
    for scores, included in (([1.0, math.nan], coins), ([1.0], coins), ([1.0, 2.0], [1, 0])):
        with pytest.raises(ValueError, match="scores must be"):
            audit.audit_canaries(scores, included, guesses=1, delta=0.0)
    with pytest.raises(ValueError, match="at most the 2 canaries, got 3"):
        audit.audit_canaries([1.0, 2.0], coins, guesses=3, delta=0.0)
