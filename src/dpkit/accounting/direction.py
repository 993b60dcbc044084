"""One direction of a run: independent privacy losses, each repeated, and certified bounds on their sum."""

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
_MAX_REFINEMENTS = 6


class NotRepresentableError(ArithmeticError):
    """The privacy loss is too large for this engine; the message says where."""


def merge(parts: Sequence[tuple[DominatingPair, int]]) -> list[tuple[DominatingPair, int]]:
    """Equal pairs once, with their counts added; all unsampled Gaussians as one (exact: mu^2 adds)."""
    counts: dict[DominatingPair, int] = {}
    mu_squared = []
    for pair, count in parts:
        if isinstance(pair, GaussianPair):
            mu_squared.append(count * pair.mu**2)
        else:
            counts[pair] = counts.get(pair, 0) + count
    merged = [(pair, count) for pair, count in counts.items() if pair.loss_range != (0.0, 0.0) or pair.infinite_mass]
    if mu_squared:
        merged.append((GaussianPair(math.sqrt(math.fsum(mu_squared))), 1))
    return merged


def certify(
    parts: Sequence[tuple[DominatingPair, int]], target: Target, ignore_below: float = 0.0
) -> tuple[float, float]:
    """Certified (lower, upper) for a direction, refined until `target` calls them tight.

    Args:
        parts: merged pairs with counts.
        ignore_below: bounds whose upper end is below this need no refinement.

    Raises:
        NotRepresentableError: losses beyond float64 matter here.
        OutOfMemoryError: not even a coarse grid fits.
    """
    if not parts:
        return 0.0, 0.0
    if any(pair.infinite_mass == 1 for pair, _ in parts):
        return (math.inf, math.inf) if target.delta is not None else (1.0, 1.0)
    largest = _largest_loss(parts)
    if target.delta == 0:
        return largest
    if target.epsilon is not None and target.epsilon >= largest[1]:
        return 0.0, 0.0
    if len(parts) == 1 and parts[0][1] == 1:
        return _single(parts[0][0], target)
    return _refine(parts, target, ignore_below)


def _largest_loss(parts: Sequence[tuple[DominatingPair, int]]) -> tuple[float, float]:
    """Epsilon at delta 0: the largest loss, infinite when some outcome gives one side away."""
    if any(pair.infinite_mass for pair, _ in parts):
        return math.inf, math.inf
    total = math.fsum(count * pair.loss_range[1] for pair, count in parts)
    return (max(0.0, total * (1 - 1e-13)), max(0.0, total * (1 + 1e-13))) if total < math.inf else (total, total)


def _single(pair: DominatingPair, target: Target) -> tuple[float, float]:
    """One release: its own profile, inverted by bisection."""
    accuracy = 1e-11

    if target.epsilon is not None:
        value = pair.delta(target.epsilon)
        return value * (1 - accuracy), min(1.0, value * (1 + accuracy))
    delta = target.delta
    assert delta is not None
    if pair.infinite_mass * (1 - accuracy) > delta:
        return math.inf, math.inf

    def solve(level: float) -> tuple[float, float]:
        if pair.delta(0.0) <= level:
            return 0.0, 0.0
        high = 1.0
        while pair.delta(high) > level:
            high *= 2
            if high > 1e15:
                return high, math.inf
        low = high / 2 if high > 1 else 0.0
        while high - low > 1e-15 * high + 1e-300:
            middle = (low + high) / 2
            if middle in (low, high):
                break
            low, high = (middle, high) if pair.delta(middle) > level else (low, middle)
        return low, high

    return solve(delta * (1 + accuracy))[0], solve(delta * (1 - accuracy))[1]


def _refine(parts: Sequence[tuple[DominatingPair, int]], target: Target, ignore_below: float) -> tuple[float, float]:
    counts = [count for _, count in parts]
    saddle = Saddle.search([_sketch(pair) for pair, _ in parts], counts, target)
    ranges = [_range(pair, saddle.budget(target) / sum(counts)) for pair, _ in parts]
    # A direction that only has to stay below the other one may try coarsely first.
    step = saddle.first_step(target) * (8 if ignore_below else 1)
    lower, upper = 0.0, math.inf if target.delta is not None else 1.0
    for attempt in range(_MAX_REFINEMENTS):
        step = max(step, max(high - low for low, high in ranges) * 128 / target.max_memory)
        offsets, step = _align(parts, step)
        laws = [(pair, step, *ends, offset) for (pair, _), ends, offset in zip(parts, ranges, offsets, strict=True)]
        above = [upper_lattice(*law) for law in laws]
        saddle = saddle.sharpen([(law.values, _log(law.probabilities)) for law in above], counts, target)
        below = [lower_lattice(*law, saddle.tilt) for law in laws]
        try:
            curves = [
                compose_lattices(side, counts, saddle.tilt, saddle.epsilon, target.max_memory)
                for side in (above, below)
            ]
        except OutOfMemoryError:
            if attempt:
                break
            step *= 16
            continue
        new_lower, new_upper = target.answer(*curves)
        lower, upper = max(lower, new_lower), min(upper, new_upper)
        excess = target.wide(lower, upper)
        if excess <= 1 or upper <= ignore_below:
            break
        step *= min(0.5, max(0.05, 0.8 / math.sqrt(excess)))
    return lower, upper


def _align(parts: Sequence[tuple[DominatingPair, int]], step: float) -> tuple[list[float], float]:
    """Offsets per part, and a step at most `step`, that put concentrated losses on lattice points.

    The lower law pays for every concentration off its lattice: atoms, and the finite end of a loss range, where
    sampling piles up the mass of all runs that the unit hardly touched.
    """
    _, leader = max((count, -i) for i, (_, count) in enumerate(parts))
    atoms = parts[-leader][0].atoms
    gap = float(np.diff(atoms).min(initial=math.inf)) if len(atoms) > 1 else math.inf
    if step < gap < math.inf:
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
    bottom, top = pair.loss_range
    points = np.geomspace(1e-12, _LARGEST_LOSS, 1200)
    edges = np.concatenate([-points[::-1], [0.0], points])
    inside = (edges > bottom) & (edges < top)
    edges = np.concatenate([[max(bottom, -_LARGEST_LOSS)], edges[inside], [min(top, _LARGEST_LOSS)]])
    p, _ = pair.sf(edges)
    masses = np.append(1.0 - p[0], -np.diff(p))
    losses = np.append(edges[0], (edges[:-1] + edges[1:]) / 2)
    # The top atom is not strictly above any edge.
    losses, masses = np.append(losses, edges[-1]), np.append(masses, max(float(p[-1]) - pair.infinite_mass, 0.0))
    kept = masses > 0
    return losses[kept], np.log(masses[kept])


def _log(values: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(values)
