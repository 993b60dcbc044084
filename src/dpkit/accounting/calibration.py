"""The least noise, the most sampling or the longest run that meets a target."""

import functools
import math
from collections.abc import Callable
from typing import Any

from dpkit import validation
from dpkit.accounting.base import PrivacyAccountant
from dpkit.mechanisms.base import Mechanism

# Distance to the neighbour that is checked to fail.
_NEIGHBOUR = 1e-3
_LEAST, _LARGEST = 1e-3, 1e9


def calibrate(
    make_mechanism: Callable[[float], Mechanism],
    accountant: PrivacyAccountant,
    *,
    target_epsilon: float,
    target_delta: float,
) -> float:
    """The least noise multiplier whose certified upper epsilon is at most the target.

    Args:
        make_mechanism: maps a noise multiplier to the whole run's mechanism; more noise must not raise epsilon.
        accountant: supplies the certified upper bound.
        target_epsilon: > 0.
        target_delta: in (0, 1).

    Returns:
        A noise multiplier z with `accountant.epsilon(make_mechanism(z), delta=target_delta).upper <= target_epsilon`,
        checked for this very z, while z - 1e-3 * min(1, z) was checked to fail (unless z < 1e-3).

    Raises:
        ValueError: a target is out of range, or no noise multiplier up to 1e9 meets it.

    >>> from dpkit import accounting, mechanisms
    >>> z = calibrate(mechanisms.Gaussian, accounting.PldAccountant(), target_epsilon=1.0, target_delta=1e-5)
    >>> 3.730 < z < 3.734
    True
    """
    gap = _gap(make_mechanism, accountant, target_epsilon, target_delta)
    return _least_enough(gap, "noise multiplier", lambda z: _NEIGHBOUR * min(1.0, z))


def calibrate_advantage(
    make_mechanism: Callable[[float], Mechanism], accountant: PrivacyAccountant, *, target_advantage: float
) -> float:
    """The least noise multiplier whose certified membership advantage, delta at epsilon 0, is at most the target.

    Args:
        make_mechanism: maps a noise multiplier to the whole run's mechanism; more noise must not raise the advantage.
        accountant: supplies the certified upper bound.
        target_advantage: in (0, 1): TPR - FPR of any attack.

    Returns:
        A noise multiplier as `calibrate` does.

    Raises:
        ValueError: the target is out of range, or no noise multiplier up to 1e9 meets it.

    >>> from dpkit import accounting, mechanisms
    >>> z = calibrate_advantage(mechanisms.Gaussian, accounting.PldAccountant(), target_advantage=0.1)
    >>> 3.978 < z < 3.984
    True
    """
    if not 0 < validation.probability("target_advantage", target_advantage) < 1:
        raise ValueError(f"target_advantage must be in (0, 1), got {target_advantage}")

    @functools.cache
    def gap(noise_multiplier: float) -> float:
        reached = accountant.delta(make_mechanism(noise_multiplier), epsilon=0.0).upper
        return math.log(reached / target_advantage) if reached else -math.inf

    return _least_enough(gap, "noise multiplier", lambda z: _NEIGHBOUR * min(1.0, z))


def calibrate_sampling_probability(
    make_mechanism: Callable[[float], Mechanism],
    accountant: PrivacyAccountant,
    *,
    target_epsilon: float,
    target_delta: float,
) -> float:
    """The largest sampling probability whose certified upper epsilon is at most the target.

    Args:
        make_mechanism: maps a sampling probability to the whole run's mechanism; sampling more must not lower epsilon.
        accountant: supplies the certified upper bound.
        target_epsilon: > 0.
        target_delta: in (0, 1).

    Returns:
        A probability q in (0, 1] with `accountant.epsilon(make_mechanism(q), delta=target_delta).upper` at most the
        target, checked for this very q, while a probability larger by 0.1 % was checked to fail (unless q = 1).

    Raises:
        ValueError: a target is out of range, or no probability down to 1e-9 meets it.

    >>> from dpkit import accounting, mechanisms
    >>> def run(q):
    ...     return mechanisms.repeat(mechanisms.PoissonSampled(mechanisms.Gaussian(1.0), q), 1000)
    >>> q = calibrate_sampling_probability(run, accounting.PldAccountant(), target_epsilon=2.0, target_delta=1e-5)
    >>> 0.0108 < q < 0.0112
    True
    """
    gap = _gap(lambda inverse: make_mechanism(1 / inverse), accountant, target_epsilon, target_delta)
    return 1.0 if gap(1.0) <= 0 else 1 / _least_enough(gap, "one unit sampled in", lambda u: _NEIGHBOUR * u)


def calibrate_iterations(
    make_mechanism: Callable[[int], Mechanism],
    accountant: PrivacyAccountant,
    *,
    target_epsilon: float,
    target_delta: float,
) -> int:
    """How long a run may be: the largest number of iterations whose certified upper epsilon is at most the target.

    Args:
        make_mechanism: maps a number of iterations to the whole run's mechanism; more must not lower epsilon.
        accountant: supplies the certified upper bound.
        target_epsilon: > 0.
        target_delta: in (0, 1).

    Returns:
        A number T with `accountant.epsilon(make_mechanism(T), delta=target_delta).upper` at most the target while that
        of T + 1 is above it, both checked; 0 where not even one iteration is allowed.

    Raises:
        ValueError: a target is out of range, or 2^40 iterations still meet it.

    >>> from dpkit import accounting, mechanisms
    >>> step = mechanisms.PoissonSampled(mechanisms.Gaussian(1.0), sampling_probability=0.01)
    >>> def run(count):
    ...     return mechanisms.repeat(step, count)
    >>> count = calibrate_iterations(run, accounting.PldAccountant(), target_epsilon=2.0, target_delta=1e-5)
    >>> 1198 < count < 1204
    True
    """
    gap = _gap(make_mechanism, accountant, target_epsilon, target_delta)
    enough, failing = 0, 1
    while gap(failing) <= 0:
        enough, failing = failing, 2 * failing
        if failing > 2**40:
            raise ValueError(f"target_epsilon = {target_epsilon} is never reached: 2^40 iterations still meet it")
    halve = False
    while failing - enough > 1:
        middle = (enough + failing) // 2
        if enough and not halve and math.isfinite(gap(enough)) and math.isfinite(gap(failing)):
            share = gap(enough) / (gap(enough) - gap(failing))
            middle = round(enough * (failing / enough) ** share)
            middle = min(max(middle, enough + 1), failing - 1)
        before = failing - enough
        enough, failing = (middle, failing) if gap(middle) <= 0 else (enough, middle)
        halve = failing - enough > before / 2
    return enough


def _gap(
    make_mechanism: Callable[[Any], Mechanism],
    accountant: PrivacyAccountant,
    target_epsilon: float,
    target_delta: float,
) -> Callable[[Any], float]:
    """Log of reached over target epsilon as a function of the parameter: at most 0 where it is good enough."""
    validation.positive("target_epsilon", target_epsilon)
    if not 0 < validation.probability("target_delta", target_delta) < 1:
        raise ValueError(f"target_delta must be in (0, 1), got {target_delta}")

    @functools.cache
    def gap(parameter: Any) -> float:
        reached = accountant.epsilon(make_mechanism(parameter), delta=target_delta).upper
        return math.log(reached / target_epsilon) if reached else -math.inf

    return gap


def _least_enough(gap: Callable[[float], float], name: str, margin: Callable[[float], float]) -> float:
    """The least parameter that is enough, where more of it lowers the gap: less by `margin` of it is not enough."""
    enough, failing = _bracket(gap, name)
    if failing is None:
        return enough
    floor = failing
    while True:
        enough = _root(gap, failing, enough, margin(enough) / enough / 5)
        # Bounds of finite width need not fall strictly, so the neighbour itself is checked.
        neighbour = enough - margin(enough)
        if gap(neighbour) > 0:
            return enough
        enough, failing = neighbour, min(floor, neighbour / 2)


def _bracket(gap: Callable[[float], float], name: str) -> tuple[float, float | None]:
    """A parameter that is enough and half of it, which fails; None where even the least one is enough."""
    enough = 1.0
    while (excess := gap(enough)) > 0:
        enough *= 2
        if enough > _LARGEST:
            raise ValueError(
                f"the target is out of reach: {name} {enough / 2:.3g} still gives "
                f"{math.exp(min(excess, 700.0)):.3g} times the target; raise the target or lower what the rest of the "
                "run spends"
            )
    while gap(enough / 2) <= 0:
        enough /= 2
        if enough < _LEAST:
            return enough, None
    return enough, enough / 2


def _root(gap: Callable[[float], float], failing: float, enough: float, resolution: float) -> float:
    """The upper end of a bracket of relative width `resolution`: secant steps in the logarithm, or halving."""
    low, high = (math.log(failing), gap(failing)), (math.log(enough), gap(enough))
    halve = False
    while high[0] - low[0] > resolution:
        middle = (low[0] + high[0]) / 2
        if not halve and math.isfinite(low[1]) and math.isfinite(high[1]):
            secant = (low[0] * high[1] - high[0] * low[1]) / (high[1] - low[1])
            # Just beyond the estimate on the far side of the wider half, so that the bracket closes from both ends.
            secant += math.copysign(resolution / 3, middle - secant)
            middle = min(max(secant, low[0] + resolution / 3), high[0] - resolution / 3)
        before = high[0] - low[0]
        point = (middle, gap(math.exp(middle)))
        low, high = (point, high) if point[1] > 0 else (low, point)
        halve = high[0] - low[0] > before / 2
    return math.exp(high[0])
