"""Privacy losses on a lattice: one law stochastically above the truth, one below, both within O(step^2).

Every probability a pair states is first widened by `relative_error`, so the two laws bracket the true one in spite of
floating point, not only in exact arithmetic.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpkit.mechanisms.pair import DominatingPair

Array = NDArray[Any]

_ULP = 2.0**-52
# Rounds of moving the lower law's cells, and the share of the heaviest cell that makes an outermost cell a pile.
_PLACEMENTS, _PILE = 2, 0.01
# Furthest an edge moves in a round, and the lattice after the last, in steps: every cell stays above the point below
# its own, -1/2 - _PLACEMENTS * _EDGE_MOVE > -1 + _HIGHEST_SHIFT.
_EDGE_MOVE, _HIGHEST_SHIFT = 1 / 8, 0.2


@dataclasses.dataclass(frozen=True)
class LatticeLoss:
    """A privacy loss that takes the value `offset + step * (first + i)` with probability `probabilities[i]`.

    `infinite_mass` is the probability of an infinite loss. `value_error` bounds how far, relative to floating point,
    the stated values may lie from those the probabilities were computed for.
    """

    offset: float
    step: float
    first: int
    probabilities: Array
    infinite_mass: float

    @property
    def values(self) -> Array:
        return self.offset + self.step * (self.first + np.arange(len(self.probabilities)))

    @property
    def value_error(self) -> float:
        ends = self.offset + self.step * self.first, self.offset + self.step * (self.first + len(self.probabilities))
        return 8 * _ULP * max(abs(end) for end in ends)


def relative_error(probability: Array) -> Array:
    """Relative error allowed for in a survival probability: its argument loses digits as the tail deepens."""
    with np.errstate(divide="ignore"):
        return _ULP * (32 - 8 * np.maximum(np.log(probability), -800.0))


def upper_lattice(pair: DominatingPair, step: float, low: float, high: float, offset: float = 0.0) -> LatticeLoss:
    """A lattice law that dominates the pair: connecting the dots of its privacy profile.

    The P- and Q-masses of each cell are both kept by splitting them between the cell's two ends; what lies below `low`
    moves up to it and what lies above `high` to infinity.

    References: Doroshenko, Ghazi, Kamath, Kumar and Manurangsi (2022), Algorithm 1.
    """
    first, last = math.floor((low - offset) / step), math.ceil((high - offset) / step) + 1
    edges = offset + step * np.arange(first, last + 1)
    cells = _cells(pair, edges, edges[:-1])
    # Within a cell P - e^edge Q = sum of p(x) (1 - e^(edge - x)), the share that must go to the upper end.
    to_upper_end = np.maximum(cells.excess + cells.error, 0.0) / -math.expm1(-step)
    widened = cells.p * (1 + relative_error(cells.p))
    # Survival on the lattice, P[loss >= edge]: what lies above the edge and what the cell below sends up to it.
    survival = np.concatenate([[1.0], widened[1:] + to_upper_end])
    survival = np.minimum.accumulate(np.minimum(survival, 1.0))
    survival[1:] = np.maximum(survival[1:], widened[-1])
    probabilities = survival - np.append(survival[1:], widened[-1])
    return LatticeLoss(offset, step, first, probabilities, float(widened[-1]))


def lower_lattice(
    pair: DominatingPair, step: float, low: float, high: float, offset: float = 0.0, tilt: float = 0.0
) -> LatticeLoss:
    """A lattice law that the pair dominates: outcomes are merged until their losses fall on the lattice.

    Merging outcomes is post-processing. First all outcomes of a cell are merged, after which it has the loss
    log(P(cell)/Q(cell)), within O(step^2) of its lattice point. Then a cell that falls short takes over just the
    fraction of the next cell that lifts it to the point; one that overshoots is rounded down. The mean loss is kept but
    for that rounding, so the lower law is within O(step^2) of the truth after any number of compositions. Mass above
    `high` moves down into the last cell and mass below `low` is dropped.

    Args:
        tilt: the exponent with which large losses matter, used only to place the lattice well.
    """
    first, last = math.floor((low - offset) / step), math.ceil((high - offset) / step)
    points = offset + step * np.arange(first, last + 1)
    edges = np.append(points - step / 2, points[-1] + step / 2)
    # Sampling piles up mass at one end of the losses: the lattice moves to go through that pile. Then each edge moves
    # by the mean miss of the two cells it parts.
    for _ in range(_PLACEMENTS):
        cells = _cells(pair, edges, points)
        miss, pile = _miss(cells, points), _pile(_log_weights(cells, points, tilt))
        move, miss[pile] = miss[pile], 0.0
        offset, points, edges = offset + move, points + move, edges + move
        edges[1:-1] -= np.clip((miss[:-1] + miss[1:]) / 2, -_EDGE_MOVE * step, _EDGE_MOVE * step)
    cells = _cells(pair, edges, points)
    shift = _best_shift(_miss(cells, points), _log_weights(cells, points, tilt), step, tilt)
    return _lift(cells, points, shift, step, offset, first, pair.infinite_mass)


def _lift(
    cells: "_Cells", points: Array, shift: float, step: float, offset: float, first: int, infinite_mass: float
) -> LatticeLoss:
    """Merged cells moved onto the lattice `points + shift`, every comparison rounded towards smaller losses."""
    q, growth = -np.diff(cells.q), np.exp(points)
    error = cells.error + 4 * _ULP * growth * q
    taken = _wanted(cells, growth * q, error, shift, step)
    # An isolated outcome falls short by rounding only and has no neighbour to take from: the lattice gives way.
    short = math.expm1(shift) * growth * q - cells.excess + error
    rounding = (taken > 1) & (short < 4 * error) & (error < 1e-6 * step * growth * q)
    if rounding.any():
        shift -= float((short[rounding] / (growth * q)[rounding]).max()) * (1 + 1e-6)
        taken = _wanted(cells, growth * q, error, shift, step)
    fails = ~(taken <= 1)
    wanted = np.where(fails, 0.0, taken * (1 + 64 * _ULP))
    taken = _given_and_taken(wanted)
    narrowed = np.maximum.accumulate((cells.p * (1 - relative_error(cells.p)))[::-1])[::-1]
    narrowed = np.maximum(narrowed - infinite_mass, 0.0)
    masses = narrowed[:-1] - np.append(narrowed[1:-1], 0.0)
    # A cell that cannot be lifted moves down one point; its loss exceeds its lower edge, which exceeds that point
    # because no edge and no shift went further than they may.
    down = np.where(fails, masses * (1 - np.append(0.0, taken[:-1])), 0.0)
    lifted = np.append(masses[1:], 0.0) * taken
    stay = masses - np.append(0.0, lifted[:-1]) - down + lifted
    probabilities = np.append(0.0, np.maximum(stay, 0.0))
    probabilities[:-1] += down
    return LatticeLoss(offset + shift, step, first - 1, probabilities, infinite_mass * (1 - 64 * _ULP))


def _wanted(cells: "_Cells", scaled_q: Array, error: Array, shift: float, step: float) -> Array:
    """The fraction of the next cell that lifts each cell to its target, from above; over 1 where nothing can."""
    # P - e^target Q of each cell, and P - e^target Q of the cell above it at the same target: both from below.
    surplus = cells.excess - math.expm1(shift) * scaled_q - error
    above = np.append((cells.excess - math.expm1(shift - step) * scaled_q - error)[1:], 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wanted = np.where(surplus < 0, -surplus / np.maximum(above, 0.0), 0.0)
    return np.where(np.isnan(wanted), np.inf, wanted)


def _given_and_taken(wanted: Array) -> Array:
    """The x with x_j = wanted_j (1 - x_{j-1}): a cell that gave to the one below needs to take less itself."""
    constant, slope, distance = wanted.copy(), -wanted, 1
    while distance < len(wanted) and np.abs(slope).max() > 1e-17:
        constant[distance:] += slope[distance:] * constant[:-distance]
        slope[distance:] *= slope[:-distance].copy()
        slope[:distance] = 0.0
        distance *= 2
    # Rounded up: a larger x_{j-1} only lowers what x_j has to be.
    taken = np.clip(constant, 0.0, 1.0)
    return np.maximum(taken, wanted * (1 - np.append(0.0, taken[:-1])))


@dataclasses.dataclass(frozen=True)
class _Cells:
    """P and Q above each edge; for each cell P(cell) - e^anchor Q(cell) and a bound on its error."""

    p: Array
    q: Array
    excess: Array
    error: Array


def _cells(pair: DominatingPair, edges: Array, anchors: Array) -> _Cells:
    p, q = pair.sf(edges)
    gain = pair.advantage(edges)
    growth = np.expm1(anchors)
    excess = -np.diff(gain) + growth * np.diff(q)
    error = _pairwise(relative_error(p) * np.abs(gain)) + np.abs(growth) * _pairwise(relative_error(q) * q)
    return _Cells(p, q, excess, error)


def _miss(cells: _Cells, points: Array) -> Array:
    """Estimate of log(P(cell)/Q(cell)) minus the cell's lattice point."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        miss = np.log1p(cells.excess / (-np.diff(cells.q) * np.exp(points)))
    return np.where(np.isfinite(miss), miss, 0.0)


def _log_weights(cells: _Cells, points: Array, tilt: float) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(-np.diff(cells.p), 0.0)) + tilt * points


def _pairwise(values: Array) -> Array:
    return values[:-1] + values[1:]


def _pile(log_weights: Array) -> int:
    """The outermost cell that carries much of the tilted mass; the heaviest one where both ends thin out."""
    heavy = np.flatnonzero(log_weights >= log_weights.max() + math.log(_PILE))
    thick = np.flatnonzero(log_weights >= log_weights.max() - 40)
    if heavy[0] == thick[0]:
        return int(heavy[0])
    return int(heavy[-1]) if heavy[-1] == thick[-1] else int(np.argmax(log_weights))


def _best_shift(miss: Array, log_weights: Array, step: float, tilt: float) -> float:
    """Where to put the lattice: overshooting cells lose the overshoot, lifted ones the square of what they take."""
    if log_weights.max() == -math.inf:
        return 0.0
    weights = np.exp(log_weights - log_weights.max())
    shares = (1.0, 0.3, 0.1, 0.03, 1e-2, 1e-3, 1e-4, 1e-5)
    candidates = {min(float(miss[weights >= share].max()), _HIGHEST_SHIFT * step) for share in shares}
    next_weights = np.append(weights[1:], 0.0) * math.exp(-tilt * step)

    def cost(shift: float) -> float:
        short = shift - miss
        unliftable = short * weights > (step - short) * next_weights
        return float(weights @ np.where(short < 0, -short, np.where(unliftable, step, short * step * (tilt + 1))))

    return min(candidates, key=cost)
