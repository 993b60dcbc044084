"""One direction of a run: independent privacy losses, each repeated, and certified bounds on their sum."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpkit.accounting.convolution import OutOfMemoryError, compose_lattices
from dpkit.accounting.saddle import Saddle, Target
from dpkit.mechanisms.discretization import lower_lattice, upper_lattice
from dpkit.mechanisms.gaussian import GaussianPair
from dpkit.mechanisms.pair import DominatingPair

Array = NDArray[np.float64]

# Losses beyond this overflow float64; a mechanism that has them with relevant probability is not accounted here.
_LARGEST_LOSS = 690.0
# Two steps beyond the largest loss still do not overflow.
_COARSEST_STEP = 8.0
_MAX_REFINEMENTS = 6
# Relative accuracy of a pair's own profile, and of an epsilon as its argument.
_PROFILE_ACCURACY, _ARGUMENT_ACCURACY = 1e-10, 2e-15
_BYTES_PER_CELL = 400
# A Gaussian of this mu has losses that float64 exponentials hold with room to spare.
_WIDEST_PIECE = 4.0
# Beyond this many lattice points a delta known as well as epsilon need be is good enough.
_DEAR = 2**20
# A lattice is made to fit atoms unless that takes more points than this across one standard deviation of the sum.
_MOST_POINTS = 2**15


class NotRepresentableError(ArithmeticError):
    """The privacy loss is too large for this engine; the message says where."""


def merge(parts: Sequence[tuple[DominatingPair, int]]) -> list[tuple[DominatingPair, int]]:
    """Equal pairs once, with their counts added; all unsampled Gaussians as one (exact: mu^2 adds)."""
    counts: dict[DominatingPair, int] = {}
    mus = []
    for pair, count in parts:
        if isinstance(pair, GaussianPair):
            mus.append((pair.mu, count))
        else:
            counts[pair] = counts.get(pair, 0) + count
    merged = [(pair, count) for pair, count in counts.items() if pair.loss_range != (0.0, 0.0) or pair.infinite_mass]
    if mus:
        largest = max(mu for mu, _ in mus)
        total = largest * math.sqrt(math.fsum(count * (mu / largest) ** 2 for mu, count in mus))
        merged.append(_split(total, sum(count for _, count in merged)))
    return merged


def _split(mu: float, others: int) -> tuple[DominatingPair, int]:
    """A Gaussian as the composition of equal smaller ones: exact, and their losses need fewer lattice points.

    Alone it stays whole, because its profile is a closed form.
    """
    if not others or mu > 1e6:
        return GaussianPair(mu), 1
    pieces = max(math.ceil((mu / _WIDEST_PIECE) ** 2), others // 4 + 1)
    return GaussianPair(mu / math.sqrt(pieces)), pieces


@dataclasses.dataclass(frozen=True)
class Certified:
    """`lower <= truth <= upper` for one direction; `tight` when they are as close as was asked."""

    lower: float
    upper: float
    tight: bool = True


def certify(parts: Sequence[tuple[DominatingPair, int]], target: Target, ignore_below: float = 0.0) -> Certified:
    """Certified bounds for a direction, refined until `target` calls them tight.

    Args:
        parts: merged pairs with counts.
        ignore_below: bounds whose upper end is below this need no refinement.

    Raises:
        NotRepresentableError: losses beyond float64 matter here.
        OutOfMemoryError: not even a coarse grid fits.
    """
    nothing, everything = (0.0, math.inf) if target.delta is not None else (0.0, 1.0)
    if not parts:
        return Certified(nothing, nothing)
    if any(pair.infinite_mass == 1 for pair, _ in parts):
        return Certified(everything, everything)
    largest = _largest_loss(parts)
    if target.delta == 0:
        return largest
    if target.epsilon is not None and target.epsilon >= largest.upper:
        return Certified(nothing, nothing)
    if target.delta is not None and largest.upper <= ignore_below:
        return Certified(nothing, largest.upper)
    if len(parts) == 1 and parts[0][1] == 1:
        return _single(parts[0][0], target)
    # delta(0) is at most the sum of the total variations.
    if target.delta is not None and 1.001 * sum(count * _profile(pair, 0.0) for pair, count in parts) <= target.delta:
        return Certified(nothing, nothing)
    return _refine(parts, target, ignore_below)


def _largest_loss(parts: Sequence[tuple[DominatingPair, int]]) -> Certified:
    """Epsilon at delta 0: the largest loss, infinite when some outcome gives one side away."""
    if any(pair.infinite_mass for pair, _ in parts):
        return Certified(math.inf, math.inf)
    total = math.fsum(count * pair.loss_range[1] for pair, count in parts)
    return Certified(max(0.0, total * (1 - 1e-13)), max(0.0, total * (1 + 1e-13)))


def _single(pair: DominatingPair, target: Target) -> Certified:
    """One release: its own profile, inverted by bisection and widened by its accuracy."""
    if target.epsilon is not None:
        inside, outside = target.epsilon * (1 + _ARGUMENT_ACCURACY), target.epsilon * (1 - _ARGUMENT_ACCURACY)
        lower, upper = (
            _profile(pair, inside) * (1 - _PROFILE_ACCURACY),
            _profile(pair, outside) * (1 + _PROFILE_ACCURACY),
        )
        return Certified(lower, min(1.0, upper + 1e-300))
    assert target.delta is not None
    lower, _ = _invert(pair, target.delta * (1 + _PROFILE_ACCURACY))
    _, upper = _invert(pair, target.delta * (1 - _PROFILE_ACCURACY))
    return Certified(lower * (1 - _ARGUMENT_ACCURACY), upper * (1 + _ARGUMENT_ACCURACY))


def _invert(pair: DominatingPair, delta: float) -> tuple[float, float]:
    """Neighbouring numbers between which the profile of the pair crosses `delta`."""
    if _profile(pair, 0.0) <= delta:
        return 0.0, 0.0
    if pair.infinite_mass >= delta:
        return math.inf, math.inf
    high = 1.0
    while _profile(pair, high) > delta:
        high *= 2
        if high > 1e300:
            return high / 2, math.inf
    low = high / 2 if high > 1 else 0.0
    for _ in range(1100):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _profile(pair, middle) > delta else (low, middle)
    return low, high


def _profile(pair: DominatingPair, epsilon: float) -> float:
    """The pair's delta(epsilon); a value that is no probability must not steer a bisection."""
    value = pair.delta(epsilon)
    if not 0 <= value <= 1 + _PROFILE_ACCURACY:
        raise NotRepresentableError(f"the privacy profile at epsilon {epsilon:g} evaluates to {value}")
    return value


def _refine(parts: Sequence[tuple[DominatingPair, int]], target: Target, ignore_below: float) -> Certified:
    counts = [count for _, count in parts]
    saddle = Saddle.search([_sketch(pair) for pair, _ in parts], counts, target)
    ranges = [_range(pair, saddle.budget(target) / sum(counts)) for pair, _ in parts]
    widest = max(high - low for low, high in ranges)
    # A direction that only has to stay below the other one may try coarsely first.
    step, fitting = saddle.first_step(target) * (8 if ignore_below else 1), math.inf
    best = Certified(0.0, math.inf if target.delta is not None else 1.0, tight=False)
    for _ in range(_MAX_REFINEMENTS):
        step = min(max(step, widest * _BYTES_PER_CELL / target.max_memory), _COARSEST_STEP)
        offsets, step = _align(parts, step, saddle.spread)
        laws = [(pair, step, *ends, offset) for (pair, _), ends, offset in zip(parts, ranges, offsets, strict=True)]
        try:
            lower, upper, saddle, size = _attempt(laws, counts, saddle, target)
        except OutOfMemoryError as error:
            step *= 1.1 * error.excess
            if step > 0.8 * fitting:
                break
            continue
        shrinks, fitting = upper - lower < 0.9 * (best.upper - best.lower), step
        best = Certified(max(best.lower, lower), min(best.upper, upper), tight=False)
        excess = target.excess(best.lower, best.upper, saddle.tilt)
        refined = step * min(0.5, max(0.05, 0.8 / math.sqrt(excess))) if excess > 1 else step
        dear = size * step / refined > _DEAR
        if (
            excess <= 1
            or best.upper <= ignore_below
            or (dear and target.acceptable(best.lower, best.upper, saddle.tilt))
        ):
            return dataclasses.replace(best, tight=True)
        if not shrinks:
            break
        step = refined
    return best


def _attempt(
    laws: Sequence[tuple[DominatingPair, float, float, float, float]],
    counts: Sequence[int],
    saddle: Saddle,
    target: Target,
) -> tuple[float, float, Saddle, int]:
    """(lower, upper, sharper saddle, lattice points) from the two lattice laws of one step."""
    lattices = [upper_lattice(*law) for law in laws]
    saddle = saddle.sharpen([(lattice.values, _log(lattice.probabilities)) for lattice in lattices], counts, target)
    curve, size = compose_lattices(lattices, counts, saddle, target.max_memory)
    upper = target.upper(curve)
    lattices = [lower_lattice(*law, saddle.tilt) for law in laws]
    curve, _ = compose_lattices(lattices, counts, saddle, target.max_memory)
    return target.lower(curve), upper, saddle, size


def _align(parts: Sequence[tuple[DominatingPair, int]], step: float, spread: float) -> tuple[list[float], float]:
    """Offsets per part, and a step at most `step`, that put concentrated losses on lattice points.

    The lower law pays for every concentration off its lattice: atoms, and the finite end of a loss range, where
    sampling piles up the mass of all runs that the unit hardly touched.
    """
    # One anchor per part is free, through its offset; of the parts with several atoms the most repeated counts most.
    several = [(count, -i) for i, (pair, count) in enumerate(parts) if len(pair.atoms) > 1]
    gap = float(np.diff(parts[-max(several)[1]][0].atoms).min()) if several else math.inf
    if gap < math.inf and gap * _MOST_POINTS > spread:
        step = gap / math.ceil(gap / step)
    offsets = []
    for pair, _ in parts:
        finite = [end for end in (*pair.atoms, *pair.loss_range) if math.isfinite(end)]
        offsets.append(finite[0] - step * math.floor(finite[0] / step) if finite else 0.0)
    return offsets, step


def _range(pair: DominatingPair, budget: float) -> tuple[float, float]:
    """Losses (low, high) with P[L > high] <= budget and P[L <= low] below float resolution."""
    bottom, top = pair.loss_range
    points = np.geomspace(1e-14, _LARGEST_LOSS, 2000)
    points = np.concatenate([-points[::-1], [0.0], points])
    points = points[(points > bottom) & (points < top)]
    p, _ = pair.sf(points)
    p = p - pair.infinite_mass
    enough = np.flatnonzero(p <= budget)
    if len(enough):
        high = float(points[enough[0]])
    elif top <= _LARGEST_LOSS:
        high = top
    else:
        raise NotRepresentableError(
            f"the privacy loss exceeds {_LARGEST_LOSS:g} with probability {float(p[-1]):.3g} per release"
        )
    full = np.flatnonzero(p >= 1.0 - pair.infinite_mass)
    low = float(points[full[-1]]) if len(full) else bottom
    return max(low, -_LARGEST_LOSS, bottom), min(high, top)


def _sketch(pair: DominatingPair) -> tuple[Array, Array]:
    """Losses and log P-masses on a geometric grid: enough for an estimate of the cumulants."""
    bottom, top = (float(np.clip(end, -_LARGEST_LOSS, _LARGEST_LOSS)) for end in pair.loss_range)
    points = np.geomspace(1e-12, _LARGEST_LOSS, 1200)
    # An edge just below each concentration keeps its place exact.
    ends = np.array([*pair.atoms, bottom, top])
    edges = np.concatenate([-points, [0.0], points, ends, ends - 1e-9 * np.abs(ends)])
    edges = np.unique(np.clip(edges, bottom, top))
    p, _ = pair.sf(edges)
    masses = -np.diff(np.concatenate([[1.0], p, [pair.infinite_mass]]))
    losses = np.concatenate([[bottom], (edges[:-1] + edges[1:]) / 2, [top]])
    kept = masses > 0
    return losses[kept], np.log(masses[kept])


def _log(values: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(values)
