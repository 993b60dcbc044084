"""Where the answer of a composition lies: estimates that steer its computation and never enter its result."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from dpkit.numerics.logspace import log_sum_exp

if TYPE_CHECKING:
    from dpkit.accounting.convolution import TailCurve

Array = NDArray[np.float64]
Law = tuple[Array, Array]
"""Losses and the logs of their P-probabilities."""


# A delta below this is not worth knowing better.
_VANISHING = 1e-200


@dataclasses.dataclass(frozen=True)
class Target:
    """What is asked of a run: epsilon at a delta, or delta at an epsilon, and how tightly."""

    tolerance: float
    max_memory: float
    delta: float | None = None
    epsilon: float | None = None

    def excess(self, lower: float, upper: float, tilt: float) -> float:
        """Width over allowed width; at most 1 is tight enough.

        Near epsilon 0 the allowance is absolute: delta falls like e^(-tilt epsilon), so 1/tilt is the natural unit.
        """
        if lower == upper or (self.epsilon is not None and upper < _VANISHING):
            return 0.0
        if math.isinf(upper):
            return math.inf
        allowed = self.tolerance * (max(upper, 1 / tilt) if self.delta is not None else upper)
        return (upper - lower) / allowed if allowed > 0 else math.inf

    def acceptable(self, lower: float, upper: float, tilt: float) -> bool:
        """Whether a delta is known as well as it would be from an epsilon of the asked tolerance."""
        return self.epsilon is not None and self.excess(lower, upper, tilt) <= max(1.0, tilt * self.epsilon)

    def upper(self, above: "TailCurve") -> float:
        """The upper bound read off the curve of a law above the truth."""
        if self.delta is not None:
            return above.upper_epsilon(self.delta)
        assert self.epsilon is not None
        return above.upper_delta(self.epsilon)

    def lower(self, below: "TailCurve") -> float:
        """The lower bound read off the curve of a law below the truth."""
        if self.delta is not None:
            return below.lower_epsilon(self.delta)
        assert self.epsilon is not None
        return below.lower_delta(self.epsilon)


@dataclasses.dataclass(frozen=True)
class Saddle:
    """The tilt at which the tilted law centres on the answer, and the answer itself as the Renyi conversion sees it.

    `width` is the standard deviation of the sum, `spread` that of the tilted sum, `total` the number of releases.
    """

    tilt: float
    epsilon: float
    log_delta: float
    width: float
    spread: float
    total: int

    @classmethod
    def search(cls, laws: Sequence[Law], counts: Sequence[int], target: Target) -> "Saddle":
        """From scratch, to a few per cent of the tilt."""
        logs = np.arange(-14.0, 25.0, 0.7)
        return _best(laws, counts, target, logs).sharpen(laws, counts, target)

    def sharpen(self, laws: Sequence[Law], counts: Sequence[int], target: Target) -> "Saddle":
        """Once more on better laws, starting from this one."""
        middle = math.log(self.tilt)
        nearby = _best(laws, counts, target, middle + np.array([-0.4, -0.2, 0.0, 0.2, 0.4]))
        return _best(laws, counts, target, math.log(nearby.tilt) + np.array([-0.1, -0.05, 0.0, 0.05, 0.1]))

    def budget(self, target: Target) -> float:
        """Probability that may move to infinity: a small part of the allowed change of a delta estimated too large."""
        return math.exp(max(self.log_delta, -640.0)) * min(1e-2, 3e-5 * target.tolerance)

    def first_step(self, target: Target) -> float:
        """From the second-order gap of the two lattice laws: about (tilt + 1) total step^2 / 6 in epsilon."""
        # No coarser than the sum itself, where it varies at all.
        scale = max(self.spread, min(1 / self.tilt, self.width)) / 8
        coarsest = scale if scale > 1e-290 else math.inf
        if self.log_delta < math.log(_VANISHING) - 40 and coarsest < math.inf:
            return coarsest
        allowed = target.tolerance * max(self.epsilon if target.delta is not None else 0.0, 1 / self.tilt)
        return min(math.sqrt(3 * allowed / ((self.tilt + 1) * self.total)), coarsest)


def _best(laws: Sequence[Law], counts: Sequence[int], target: Target, log_tilts: Array) -> Saddle:
    """The best tilt among candidates: least epsilon at a given delta, least delta at a given epsilon."""
    tilts = np.exp(log_tilts)
    cumulants = np.zeros(len(tilts))
    for (losses, logs), count in zip(laws, counts, strict=True):
        cumulants += [count * log_sum_exp(tilt * losses + logs) for tilt in tilts]
    constants = -tilts * np.log1p(1 / tilts) - np.log1p(tilts)
    if target.delta is not None:
        log_delta = math.log(target.delta)
        epsilons = (cumulants - log_delta + constants) / tilts
        best = int(np.argmin(epsilons))
        epsilon = float(epsilons[best])
        if epsilon < 0:
            # Epsilon is 0; the tilt that matters is the one of delta(0).
            epsilon, best = 0.0, int(np.argmin(cumulants + constants))
    else:
        epsilon = cast(float, target.epsilon)
        log_deltas = cumulants - tilts * epsilon + constants
        best = int(np.argmin(log_deltas))
        log_delta = float(log_deltas[best])
    tilt = float(tilts[best])
    width, spread = (
        max(1e-300, math.sqrt(math.fsum(count * _variance(law, t) for law, count in zip(laws, counts, strict=True))))
        for t in (0.0, tilt)
    )
    return Saddle(tilt, epsilon, log_delta, width, spread, sum(counts))


def _variance(law: Law, tilt: float) -> float:
    """Of the tilted law."""
    losses, logs = law
    exponents = tilt * losses + logs
    weights = np.exp(exponents - log_sum_exp(exponents))
    mean = float((weights * losses).sum())
    return float((weights * (losses - mean) ** 2).sum())
