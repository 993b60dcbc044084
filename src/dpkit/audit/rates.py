"""From the errors of a membership attack to a lower bound on epsilon."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from dpkit import accounting, mechanisms, validation
from dpkit.audit.result import AuditResult, checked_confidence

Array = NDArray[np.float64]
Method = Literal["threshold", "gdp"]

_MOST_THRESHOLDS = 1024
_INDEPENDENT = "the releases are independent, and the attack was fixed before them"
GAUSSIAN = "the trade-off function is that of a Gaussian mechanism (Gaussian DP), which no sample can show; "


def clopper_pearson_upper(count: ArrayLike, trials: ArrayLike, *, confidence: float) -> Array:
    """The exact upper confidence limit of a probability from `count` successes in `trials` independent trials.

    Args:
        count: successes, 0 <= count <= trials.
        trials: how many trials; 0 of them say nothing.
        confidence: in (0, 1), one-sided.

    Returns:
        Limits in (0, 1], shaped like the arguments broadcast; 1 where every trial was a success.

    Raises:
        ValueError: there are more successes than trials, or an argument is out of range.

    References: Clopper and Pearson (1934).

    >>> clopper_pearson_upper([0, 5, 10], 10, confidence=0.95).round(4).tolist()
    [0.2589, 0.7776, 1.0]
    """
    count, trials = np.broadcast_arrays(np.asarray(count, np.float64), np.asarray(trials, np.float64))
    if not np.all((count >= 0) & (count <= trials) & np.isfinite(trials)):
        raise ValueError(f"count must be between 0 and trials, got count={count} and trials={trials}")
    beta = 1 - checked_confidence(confidence)
    inside = count < trials
    missed = np.where(inside, trials - count, 1.0)
    return np.where(inside, special.betaincinv(count + 1, missed, 1 - beta), 1.0)


def audit_counts(
    false_positives: int,
    absent_trials: int,
    false_negatives: int,
    present_trials: int,
    *,
    delta: float,
    confidence: float = 0.95,
    method: Method = "threshold",
) -> AuditResult:
    """The lower bound on epsilon that the errors of an attack prove.

    Args:
        false_positives: how often the attack said "present" in `absent_trials` releases without the unit.
        absent_trials: >= 1.
        false_negatives: how often it said "absent" in `present_trials` releases with the unit.
        present_trials: >= 1.
        delta: in [0, 1]; above 0 for "gdp".
        confidence: of the bound, in (0, 1); half of what it leaves goes to either rate.
        method: "threshold" needs no assumption about the mechanism. "gdp" converts the rates to the mu of Gaussian DP
            and that to epsilon, which gives far more from few trials and holds only for Gaussian-like mechanisms.

    Raises:
        ValueError: an argument is out of range.

    Guarantees: for an attack fixed beforehand and independent releases, (epsilon, delta)-DP implies
    FPR e^epsilon >= 1 - delta - FNR and the same with the rates exchanged (Kairouz, Oh and Viswanath 2015, Theorem
    2.1); the rates are below their Clopper-Pearson limits with the stated confidence, both at once.

    References: Nasr et al. (2023), "Tight auditing of differentially private machine learning", for "gdp".

    >>> found = audit_counts(12, 10_000, 9_000, 10_000, delta=1e-5)
    >>> round(found.epsilon_lower, 3), found.confidence
    (3.806, 0.95)
    """
    absent_trials = validation.count("absent_trials", absent_trials, minimum=1)
    present_trials = validation.count("present_trials", present_trials, minimum=1)
    false_positives = validation.count("false_positives", false_positives)
    false_negatives = validation.count("false_negatives", false_negatives)
    delta, method = _checked(delta, method)
    rates = _limits(false_positives, absent_trials, false_negatives, present_trials, confidence)
    bound = float(_score(*rates, delta, method))
    if method == "gdp" and bound:
        bound = accounting.PldAccountant().epsilon(mechanisms.Gaussian(1 / bound), delta=delta).lower
    return AuditResult(
        epsilon_lower=bound,
        delta=delta,
        confidence=confidence,
        method="error rates" if method == "threshold" else "error rates, read as Gaussian DP",
        samples=absent_trials + present_trials,
        assumption=_INDEPENDENT if method == "threshold" else GAUSSIAN + _INDEPENDENT,
        false_positive_rate=float(rates[0]),
        false_negative_rate=float(rates[1]),
    )


def audit_scores(
    present: ArrayLike, absent: ArrayLike, *, delta: float, confidence: float = 0.95, method: Method = "threshold"
) -> AuditResult:
    """The lower bound on epsilon from a score of each release, larger where the unit seems present.

    The first half of either sample chooses the threshold, the second half measures its errors.

    Args:
        present: scores of independent releases with the unit (n,), n >= 2.
        absent: scores of independent releases without it (m,), m >= 2.
        delta: as in `audit_counts`.
        confidence: as in `audit_counts`.
        method: as in `audit_counts`.

    Raises:
        ValueError: a sample is too small or holds a NaN, or an argument is out of range.

    Guarantees: those of `audit_counts`, if the score was fixed before the releases.

    >>> rng = np.random.default_rng(0)
    >>> found = audit_scores(rng.normal(2, 1, 20_000), rng.normal(0, 1, 20_000), delta=1e-2)
    >>> 3.5 < found.epsilon_lower < accounting.PldAccountant().epsilon(mechanisms.Gaussian(0.5), delta=1e-2).upper
    True
    """
    delta, method = _checked(delta, method)
    present, absent = _sample("present", present), _sample("absent", absent)
    half, other = len(present) // 2, len(absent) // 2
    threshold, _ = best_threshold(present[:half], absent[:other], delta, confidence, method)
    return audit_threshold(threshold, present[half:], absent[other:], delta, confidence, method)


def audit_threshold(
    threshold: float, present: Array, absent: Array, delta: float, confidence: float, method: Method
) -> AuditResult:
    """The bound of the attack that says "present" where a score is above a threshold fixed beforehand."""
    positives, negatives = int(np.count_nonzero(absent > threshold)), int(np.count_nonzero(present <= threshold))
    return audit_counts(
        positives, len(absent), negatives, len(present), delta=delta, confidence=confidence, method=method
    )


def best_threshold(
    present: Array, absent: Array, delta: float, confidence: float, method: Method
) -> tuple[float, float]:
    """The threshold that these samples recommend, and how good it looks: which is no bound on anything."""
    scores = np.unique(np.concatenate([present, absent]))
    if len(scores) > _MOST_THRESHOLDS:
        # The rates that matter are often tiny: as many thresholds among the extremes as in the middle.
        ranks = np.geomspace(1, len(scores) / 2, _MOST_THRESHOLDS // 2).astype(int)
        scores = scores[np.unique(np.concatenate([ranks - 1, len(scores) - ranks]))]
    positives = len(absent) - np.searchsorted(np.sort(absent), scores, side="right")
    negatives = np.searchsorted(np.sort(present), scores, side="right")
    values = _score(*_limits(positives, len(absent), negatives, len(present), confidence), delta, method)
    best = int(np.argmax(values))
    return float(scores[best]), float(values[best])


def _limits(
    positives: ArrayLike, absent_trials: int, negatives: ArrayLike, present_trials: int, confidence: float
) -> tuple[Array, Array]:
    each = (1 + checked_confidence(confidence)) / 2
    return (
        clopper_pearson_upper(positives, absent_trials, confidence=each),
        clopper_pearson_upper(negatives, present_trials, confidence=each),
    )


def _score(false_positive: Array, false_negative: Array, delta: float, method: Method) -> Array:
    """A lower bound on epsilon, or with "gdp" on mu; at least 0. Both rates are above 0."""
    if method == "gdp":
        return np.maximum(-special.ndtri(false_positive) - special.ndtri(false_negative), 0.0)
    gains = np.maximum(1 - delta - false_negative, false_positive), np.maximum(1 - delta - false_positive, 0.0)
    return np.log(np.maximum(gains[0] / false_positive, np.maximum(gains[1] / false_negative, 1.0)))


def _checked(delta: float, method: Method) -> tuple[float, Method]:
    delta = validation.probability("delta", delta)
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    if method == "gdp" and not delta:
        raise ValueError("delta must be > 0 for method gdp, got 0: no Gaussian mechanism is (epsilon, 0)-DP")
    return delta, method


def _sample(name: str, scores: ArrayLike) -> Array:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or np.isnan(values).any():
        raise ValueError(f"{name} must hold at least two scores and no NaN, got shape {values.shape}")
    return values


def checked_trials(trials: int) -> tuple[int, int]:
    """How many releases choose the attack, and how many then measure it."""
    trials = validation.count("trials", trials, minimum=4)
    return trials // 2, trials - trials // 2
