"""Audits of a single training run with many canaries."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from dpkit import validation
from dpkit.audit.result import AuditResult, checked_confidence

_ASSUMPTION = (
    "every canary was included by a fair coin of its own, and the guesses depend on the coins only through what the "
    "run released"
)


def one_run_p_value(canaries: int, guesses: int, correct: int, *, epsilon: float, delta: float) -> float:
    """The most probable that so many correct guesses about one run can be, if the run is (epsilon, delta)-DP.

    Args:
        canaries: examples that fair coins decided on, m.
        guesses: canaries about which a guess was made, r <= m.
        correct: guesses that were right, v <= r.
        epsilon: >= 0.
        delta: in [0, 1 / (2 canaries)].

    Returns:
        `P[W >= v] + 2 m delta max over i of P[v - i <= W < v] / i`, W binomial of r trials with probability
        1 / (1 + e^-epsilon), at most 1. It increases with epsilon, because each of its terms is a mean of
        P[W >= v] and P[W >= v - i] with weights 1 - 2 m delta / i and 2 m delta / i, which `delta` keeps positive.

    Raises:
        ValueError: an argument is out of range.

    References: Steinke, Nasr and Jagielski (2023), "Privacy auditing with one (1) training run", Theorem 5.2.

    >>> one_run_p_value(100, 100, 60, epsilon=0.0, delta=0.0)
    0.0284439668204
    """
    canaries, guesses, correct, delta = _checked(canaries, guesses, correct, delta)
    probability = special.expit(validation.non_negative("epsilon", epsilon))
    if not correct:
        return 1.0
    tail = _tail(np.arange(correct, -1, -1), guesses, probability)
    worst = np.max((tail[1:] - tail[0]) / np.arange(1, correct + 1))
    return float(min(1.0, tail[0] + 2 * canaries * delta * worst))


def audit_guesses(canaries: int, guesses: int, correct: int, *, delta: float, confidence: float = 0.95) -> AuditResult:
    """The lower bound on epsilon that correct guesses about the canaries of one run prove.

    Args:
        canaries: as in `one_run_p_value`.
        guesses: likewise; how many there would be was fixed before the run.
        correct: likewise.
        delta: in [0, 1 / (2 canaries)].
        confidence: of the bound, in (0, 1).

    Returns:
        The largest epsilon such that neither it nor any smaller one has a p-value above 1 - `confidence`; 0 where
        none has.

    Raises:
        ValueError: an argument is out of range.

    Guarantees: exact for delta = 0 (randomized response attains the p-value); valid for add-or-remove and zero-out
    neighbours, for one run of any mechanism whose privacy unit is a canary.

    >>> found = audit_guesses(1_000, 100, 95, delta=1e-5)
    >>> round(found.epsilon_lower, 4)
    2.1652
    """
    canaries, guesses, correct, delta = _checked(canaries, guesses, correct, delta)
    beta = 1 - checked_confidence(confidence)

    def rejected(epsilon: float) -> bool:
        return one_run_p_value(canaries, guesses, correct, epsilon=epsilon, delta=delta) <= beta

    low, high = 0.0, 1.0
    if rejected(0.0):
        while rejected(high):
            low, high = high, 2 * high
        while (middle := (low + high) / 2) not in (low, high) and high - low > 1e-12 * high:
            low, high = (middle, high) if rejected(middle) else (low, middle)
    return AuditResult(
        epsilon_lower=low,
        delta=delta,
        confidence=confidence,
        method=f"one run, {correct:,} of {guesses:,} guesses correct",
        samples=canaries,
        assumption=_ASSUMPTION,
    )


def audit_canaries(
    scores: ArrayLike, included: ArrayLike, *, guesses: int, delta: float, confidence: float = 0.95
) -> AuditResult:
    """The lower bound on epsilon from a score of each canary of one run, larger where it seems included.

    The guesses / 2 canaries of the highest scores are guessed to be in, those of the lowest to be out; about the
    others nothing is said.

    Args:
        scores: computed from what the run released and from what does not depend on the coins (m,).
        included: the coins, True for in (m,).
        guesses: how many to make, from 1 to m, chosen before the run.
        delta: in [0, 1 / (2 m)].
        confidence: of the bound, in (0, 1).

    Raises:
        ValueError: an argument is out of range, a score is NaN, or scores and coins are not of one length.

    Guarantees: those of `audit_guesses`.

    >>> rng = np.random.default_rng(0)
    >>> coins = rng.random(1_000) < 0.5
    >>> found = audit_canaries(rng.normal(coins, 0.3), coins, guesses=200, delta=1e-5)
    >>> 4.0 < found.epsilon_lower < 4.3
    True
    """
    scores, coins = np.asarray(scores, dtype=np.float64), np.asarray(included)
    if scores.ndim != 1 or scores.shape != coins.shape or coins.dtype != bool or np.isnan(scores).any():
        raise ValueError(
            f"scores must be numbers and included as many bools, got {scores.dtype} {scores.shape} with "
            f"{np.isnan(scores).sum()} NaN, and {coins.dtype} {coins.shape}"
        )
    guesses = validation.count("guesses", guesses, minimum=1)
    if guesses > len(scores):
        raise ValueError(f"guesses must be at most the {len(scores)} canaries, got {guesses}")
    order = np.argsort(scores, kind="stable")
    lowest, highest = order[: guesses // 2], order[len(order) - (guesses - guesses // 2) :]
    correct = int(np.count_nonzero(~coins[lowest]) + np.count_nonzero(coins[highest]))
    return audit_guesses(len(scores), guesses, correct, delta=delta, confidence=confidence)


def _tail(least: np.ndarray, trials: int, probability: float) -> np.ndarray:
    """P[W >= least], W binomial."""
    inside = np.maximum(least, 1)
    return np.where(least > 0, special.betainc(inside, trials - inside + 1, probability), 1.0)


def _checked(canaries: int, guesses: int, correct: int, delta: float) -> tuple[int, int, int, float]:
    canaries = validation.count("canaries", canaries, minimum=1)
    guesses, correct = validation.count("guesses", guesses), validation.count("correct", correct)
    if not correct <= guesses <= canaries:
        raise ValueError(
            f"correct <= guesses <= canaries is needed, got correct={correct}, guesses={guesses}, canaries={canaries}"
        )
    delta = validation.probability("delta", delta)
    if 2 * canaries * delta > 1:
        raise ValueError(
            f"delta must be at most 1 / (2 canaries) = {1 / (2 * canaries):.3g}, got {delta}: with more, a run may "
            "give canaries away at any epsilon; use a smaller delta or fewer canaries"
        )
    return canaries, guesses, correct, delta
