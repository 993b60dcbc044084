"""The least noise that meets a target."""

import functools
import math
from collections.abc import Callable

from dpkit import validation
from dpkit.accounting.base import PrivacyAccountant
from dpkit.mechanisms.base import Mechanism

# Relative width of the final bracket, and distance to the neighbour that is checked to fail.
_RESOLUTION, _NEIGHBOUR = 2e-4, 1e-3
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
    validation.positive("target_epsilon", target_epsilon)
    if not 0 < validation.probability("target_delta", target_delta) < 1:
        raise ValueError(f"target_delta must be in (0, 1), got {target_delta}")

    @functools.cache
    def gap(z: float) -> float:
        """Log of reached over target epsilon: at most 0 where z is enough."""
        reached = accountant.epsilon(make_mechanism(z), delta=target_delta).upper
        if reached == 0:
            return -math.inf
        return math.log(reached / target_epsilon)

    enough, failing = _bracket(gap)
    if failing is None:
        return enough
    floor = failing
    while True:
        enough = _root(gap, failing, enough)
        # Bounds of finite width need not fall strictly, so the neighbour itself is checked.
        neighbour = enough - _NEIGHBOUR * min(1.0, enough)
        if gap(neighbour) > 0:
            return enough
        enough, failing = neighbour, min(floor, neighbour / 2)


def _bracket(gap: Callable[[float], float]) -> tuple[float, float | None]:
    """A noise multiplier that is enough and half of it, which fails; None where even the least one is enough."""
    enough = 1.0
    while (excess := gap(enough)) > 0:
        enough *= 2
        if enough > _LARGEST:
            raise ValueError(
                f"target_epsilon is out of reach: noise multiplier {enough / 2:.3g} still gives "
                f"{math.exp(min(excess, 700.0)):.3g} times the target; raise the target or lower what the rest of the "
                "run spends"
            )
    while gap(enough / 2) <= 0:
        enough /= 2
        if enough < _LEAST:
            return enough, None
    return enough, enough / 2


def _root(gap: Callable[[float], float], failing: float, enough: float) -> float:
    """The upper end of a bracket of relative width `_RESOLUTION`: secant steps in the logarithm, or halving."""
    low, high = (math.log(failing), gap(failing)), (math.log(enough), gap(enough))
    halve = False
    while high[0] - low[0] > _RESOLUTION:
        middle = (low[0] + high[0]) / 2
        if not halve and math.isfinite(low[1]) and math.isfinite(high[1]):
            secant = (low[0] * high[1] - high[0] * low[1]) / (high[1] - low[1])
            # Just beyond the estimate on the far side of the wider half, so that the bracket closes from both ends.
            secant += math.copysign(_RESOLUTION / 3, middle - secant)
            middle = min(max(secant, low[0] + _RESOLUTION / 3), high[0] - _RESOLUTION / 3)
        before = high[0] - low[0]
        point = (middle, gap(math.exp(middle)))
        low, high = (point, high) if point[1] > 0 else (low, point)
        halve = high[0] - low[0] > before / 2
    return math.exp(high[0])
