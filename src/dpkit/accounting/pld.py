"""The privacy-loss-distribution accountant: certified intervals."""

import dataclasses
import math
from collections.abc import Sequence

from dpkit import validation
from dpkit.accounting.base import Bounds, PrivacyAccountant
from dpkit.accounting.direction import Direction, NotRepresentableError
from dpkit.accounting.inversion import OutOfMemoryError
from dpkit.accounting.rdp import RdpAccountant
from dpkit.accounting.refinement import Laws, Refinement
from dpkit.accounting.saddle import Target
from dpkit.mechanisms.base import Mechanism, UnsupportedViewError


@dataclasses.dataclass(frozen=True)
class PldAccountant(PrivacyAccountant):
    """Composes privacy loss distributions and brackets the exact answer.

    Args:
        relation: when two data sets are neighbours.
        tolerance: relative width aimed at for the returned interval. Near epsilon 0, where delta barely depends on
            epsilon, the width in units of the epsilon that changes delta by a factor e. A delta that would be dear to
            know so well is given as well as an epsilon of this tolerance determines it.
        max_memory: bytes a composition may use.

    Guarantees: `lower <= truth <= upper`, rounding, truncation and wrap-around included. Both directions are composed
    separately over the whole run and the worse one is returned. Where memory or the float64 range prevents a bound,
    the Renyi bound is returned instead and `note` says so. Where a dominating pair is only an upper bound on
    the mechanism (`DominatingPair.attained`), `lower` is 0, and the answer to a single question is the Renyi bound
    where that is smaller.

    References: Zhu, Dong and Wang (2022); Doroshenko et al. (2022); the inversion and its errors in
    `dpkit.accounting.inversion`.

    >>> from dpkit import mechanisms
    >>> step = mechanisms.PoissonSampled(mechanisms.Gaussian(1.5), sampling_probability=0.02)
    >>> bounds = PldAccountant().epsilon(mechanisms.repeat(step, 300), delta=1e-6)
    >>> bounds.lower <= 1.2262042 <= bounds.upper < 1.2275
    True
    """

    tolerance: float = 1e-3
    max_memory: float = 1e9

    def __post_init__(self):
        super().__post_init__()
        tolerance = validation.positive("tolerance", self.tolerance)
        if not 1e-9 <= tolerance < 1:
            raise ValueError(f"tolerance must be in [1e-9, 1), got {tolerance}")
        if validation.positive("max_memory", self.max_memory) < 1e6:
            raise ValueError(f"max_memory must be at least 1e6 bytes, got {self.max_memory}")

    def _epsilon(self, mechanism: Mechanism, delta: float) -> Bounds:
        return self._epsilons(mechanism, [delta])[0]

    def _epsilons(self, mechanism: Mechanism, deltas: Sequence[float], laws: Laws | None = None) -> list[Bounds]:
        return self._all(mechanism, [Target(self.tolerance, self.max_memory, delta=delta) for delta in deltas], laws)

    def _delta(self, mechanism: Mechanism, epsilon: float) -> Bounds:
        return self._deltas(mechanism, [epsilon])[0]

    def _deltas(self, mechanism: Mechanism, epsilons: Sequence[float]) -> list[Bounds]:
        return self._all(mechanism, [Target(self.tolerance, self.max_memory, epsilon=epsilon) for epsilon in epsilons])

    def _sweep(self, mechanisms: Sequence[Mechanism], deltas: Sequence[float]) -> list[Bounds]:
        laws = Laws()
        return [self._epsilons(run, [delta], laws)[0] for run, delta in zip(mechanisms, deltas, strict=True)]

    def _all(self, mechanism: Mechanism, targets: Sequence[Target], laws: Laws | None = None) -> list[Bounds]:
        """One transform often answers several targets: they are taken in order, and returned as they came."""
        pairs = [(part.dominating_pairs(self.relation), count) for part, count in mechanism.parts()]  # type: ignore[arg-type]
        directions = [Direction.merge([(both[side], count) for both, count in pairs]) for side in (0, 1)]
        if directions[0] == directions[1]:
            directions.pop()
        laws = Laws() if laws is None else laws
        refinements = [Refinement(direction, laws) for direction in directions]
        attained = all(pair.attained for both, _ in pairs for pair in both)
        order = sorted(range(len(targets)), key=lambda i: targets[i].delta or targets[i].epsilon or 0.0)
        # The Renyi view may know the mechanism better than a pair that is only a bound on it, but every search over
        # orders can take seconds where each divergence is a worst case: too long for the points of a curve.
        compared = not attained and len(targets) == 1
        found = {i: self._bounds(mechanism, refinements, targets[i], attained, compared) for i in order}
        return [found[i] for i in range(len(targets))]

    def _bounds(
        self, mechanism: Mechanism, refinements: Sequence[Refinement], target: Target, attained: bool, compared: bool
    ) -> Bounds:
        if target.delta == 1:
            return Bounds(0.0, 0.0)
        lower, upper, tight, note = 0.0, 0.0, True, f"the interval is wider than tolerance={self.tolerance:g} asks for"
        try:
            for refinement in refinements:
                bounds = refinement.certify(target, ignore_below=lower)
                lower, upper, tight = max(lower, bounds.lower), max(upper, bounds.upper), tight and bounds.tight
        except (NotRepresentableError, OutOfMemoryError) as error:
            upper, tight, note = math.inf if target.delta is not None else 1.0, False, str(error)
        # One direction may be loose where the other is what counts.
        tight = tight or (math.isfinite(upper) and upper - lower <= target.allowed(upper, math.inf))
        if not attained:
            lower = 0.0
        if tight and not compared:
            return Bounds(lower, upper)
        reason = "the dominating pair is only a bound" if tight else note
        found = self._with_renyi(mechanism, target, lower, upper, reason)
        return Bounds(lower, upper) if tight and found.upper == upper else found

    def _with_renyi(self, mechanism: Mechanism, target: Target, lower: float, upper: float, reason: str) -> Bounds:
        """The wide or missing bound, improved by the Renyi one where that exists."""
        renyi = RdpAccountant(self.relation)
        try:
            if target.delta is not None:
                other = renyi.epsilon(mechanism, delta=target.delta)
            else:
                other = renyi.delta(mechanism, epsilon=target.epsilon)  # type: ignore[arg-type]
        except UnsupportedViewError:
            return Bounds(lower, upper, note=reason)
        if other.upper < upper:
            # A Renyi bound below our lower one would be a contradiction, which `Bounds` refuses.
            return Bounds(lower, other.upper, order=other.order, note=f"upper is the Renyi bound: {reason}")
        return Bounds(lower, upper, note=reason)
