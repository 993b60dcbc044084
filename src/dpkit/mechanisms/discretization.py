"""Privacy losses on a lattice: one law stochastically above the truth, one below, both within O(step^2).

Every probability a pair states is first widened by `relative_error`, so the two laws bracket the true one in spite of
floating point, not only in exact arithmetic.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from dpkit.mechanisms.pair import DominatingPair

Array = NDArray[np.float64]

_ULP = 2.0**-52


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
    p, _, excess, error = _cells(pair, edges, edges[:-1])
    # Within a cell P - e^edge Q = sum of p(x) (1 - e^(edge - x)), the share that must go to the upper end.
    to_upper_end = np.maximum(excess + error, 0.0) / -math.expm1(-step)
    widened = p * (1 + relative_error(p))
    # Survival on the lattice, P[loss >= edge]: what lies above the edge and what the cell below sends up to it.
    survival = np.concatenate([[1.0], widened[1:] + to_upper_end])
    survival = np.minimum.accumulate(np.minimum(survival, 1.0))
    survival[1:] = np.maximum(survival[1:], widened[-1])
    probabilities = survival - np.append(survival[1:], widened[-1])
    return LatticeLoss(offset, step, first, probabilities, float(widened[-1]))


def lower_lattice(
    pair: DominatingPair, step: float, low: float, high: float, offset: float = 0.0, tilt: float = 0.0
) -> LatticeLoss:
    """A lattice law that the pair dominates: outcomes are merged cell by cell.

    Merging all outcomes whose loss lies in a cell is post-processing, after which the cell has the loss
    log(P(cell)/Q(cell)). Cell edges halfway between lattice points leave that loss O(step^2) from its point; moving each
    edge by the mean of its two neighbours' misses leaves O(step^4), and raising the edges under the cells that still
    fall short leaves almost nothing. What remains is met by one small downward shift of the whole lattice; a cell that
    would need a larger one moves down a whole step instead. Mass above `high` moves down into the last cell and mass
    below `low` is dropped.

    Args:
        tilt: the exponent with which large losses matter, used only to choose the shift well.
    """
    first, last = math.floor((low - offset) / step), math.ceil((high - offset) / step)
    centers = offset + step * np.arange(first, last + 1)
    edges = np.append(centers - step / 2, centers[-1] + step / 2)
    miss, _ = _miss(*_cells(pair, edges, centers), centers)
    edges[1:-1] -= np.clip((miss[:-1] + miss[1:]) / 2, -step / 8, step / 8)
    _, bound = _miss(*_cells(pair, edges, centers), centers)
    # A cell's loss rises by about half of what its lower edge does.
    edges[:-1] += np.clip(-2.1 * bound, 0.0, step / 8)
    p, q, excess, error = _cells(pair, edges, centers)
    _, bound = _miss(p, q, excess, error, centers)
    need = np.minimum(-bound, centers - edges[:-1])
    narrowed = p * (1 - relative_error(p))
    narrowed = np.maximum.accumulate(narrowed[::-1])[::-1]
    narrowed = np.maximum(narrowed - pair.infinite_mass, 0.0)
    # Everything above the last edge joins the last cell.
    masses = narrowed[:-1] - np.append(narrowed[1:-1], 0.0)
    shift = _best_shift(need, masses, centers, step, tilt)
    moved = np.where(need > shift, masses, 0.0)
    probabilities = np.append(0.0, masses - moved)
    probabilities[:-1] += moved
    return LatticeLoss(offset - shift, step, first - 1, probabilities, pair.infinite_mass * (1 - 64 * _ULP))


def _cells(pair: DominatingPair, edges: Array, anchors: Array) -> tuple[Array, Array, Array, Array]:
    """P and Q above each edge; `P(cell) - e^anchor Q(cell)` for each cell and a bound on its error."""
    p, q = pair.sf(edges)
    gain = pair.advantage(edges)
    growth = np.expm1(anchors)
    excess = -np.diff(gain) + growth * np.diff(q)
    error = relative_error(p) * np.abs(gain), relative_error(q) * q
    return p, q, excess, _pairwise(error[0]) + np.abs(growth) * _pairwise(error[1])


def _miss(p: Array, q: Array, excess: Array, error: Array, centers: Array) -> tuple[Array, Array]:
    """log(P(cell)/Q(cell)) minus the cell's lattice point: an estimate, and a lower bound (-inf where unknown)."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        growth = np.exp(centers)
        estimate = np.log1p(excess / (-np.diff(q) * growth))
        lower_q = (-np.diff(q) - _pairwise(relative_error(q) * q)) * growth
        # P(cell) >= e^(center - s) Q(cell) whenever excess >= -(1 - e^-s) e^center Q(cell).
        bound = np.log1p(np.clip((excess - error) / lower_q, -1.0, 0.0))
    return np.where(np.isfinite(estimate), estimate, 0.0), np.where(lower_q > 0, bound, -np.inf)


def _pairwise(values: Array) -> Array:
    return values[:-1] + values[1:]


def _best_shift(need: Array, masses: Array, centers: Array, step: float, tilt: float) -> float:
    """The shift that loses least: itself, plus a whole step for the tilted mass of the cells that need more."""
    with np.errstate(divide="ignore"):
        log_weights = np.log(masses) + tilt * centers
    top = log_weights.max()
    if top == -math.inf:
        return 0.0
    weights = np.exp(log_weights - top)
    total = weights.sum()
    order = np.argsort(need)
    moved = 1 - np.cumsum(weights[order]) / total
    cost = need[order] + step * np.maximum(moved, 0.0)
    return float(need[order][np.argmin(cost)])
