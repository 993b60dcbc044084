"""The finite pair that realises the pointwise maximum of many privacy profiles."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from dpkit.mechanisms.discretization import LARGEST_LOSS
from dpkit.mechanisms.finite_pair import FinitePair
from dpkit.mechanisms.pair import Array


@dataclasses.dataclass(frozen=True)
class EnvelopePair(FinitePair):
    """Finite laws that dominate many pairs; none of those need be this one."""

    @property
    def attained(self) -> bool:
        return False


Profile = Callable[[Array, Array], tuple[Array, Array]]
"""From epsilons and values already known there to the largest H_{e^epsilon} and e^epsilon Q[L > epsilon] of a pair that
reaches it, NaN where none exceeds the known value."""

# The profile is known to this relative accuracy between the points where it is evaluated.
_ACCURACY = 1e-11
# Corners this share of the largest loss apart are one.
_CLOSEST = 1e-11
_FIRST, _MOST_POINTS = 17, 20_000
# No two of the first points are further apart than this, for exponentials.
_WIDEST = 50.0
_LEAST = 1e-300
# Relative outward rounding of a profile that sums `outcomes` terms: units in the last place.
_ULPS, _ULPS_PER_OUTCOME = 32, 1 / 8


def envelope_pair(profile: Profile, largest_loss: float, outcomes: int) -> EnvelopePair:
    """The pair whose profile is the maximum of the profiles of many pairs, in either order.

    The maximum h(g), g = e^epsilon, of hockey-stick profiles is convex, non-increasing, 1 at g = 0, at least 1 - g
    and 0 in the end, so it is itself the profile of a pair (Zhu, Dong and Wang 2022): Q gives the likelihood ratio
    the law h'', whose mass is -h'(0) <= 1 and whose mean is h(0) = 1, and what Q lacks of mass 1 lies where the ratio
    is 0. That pair dominates them all; it need not be any of them, so that no run need be as bad as it says. Since
    every pair counts in either order, h is its own reverse, and what h is for g >= 1 says what it is for g < 1.

    The profiles of finite laws are polygons, and so is h. Its corners are found by a sandwich: a convex function lies
    above its tangents and below its chords; where the two differ the function is evaluated at the point in which the
    tangents of two neighbouring points meet, which for a polygon is a corner after finitely many steps. Wherever
    it stops, connecting the dots bounds h from above, everywhere.

    Args:
        profile: evaluates the maximum for epsilons >= 0.
        largest_loss: the largest loss of any pair; h is 0 from there on.
        outcomes: how many outcomes a law has, for the rounding.
    """
    losses, values = _corners(profile, largest_loss)
    values = np.minimum(values * (1 + 2.0**-52 * (_ULPS + _ULPS_PER_OUTCOME * outcomes)), 1.0)
    # What float64 cannot hold is not nothing.
    values[:-1] = np.maximum(values[:-1], _LEAST)
    return pair_through(losses, values)


def pair_through(losses: Array, values: Array) -> EnvelopePair:
    """The pair that is its own reverse and whose profile connects the lowest of these dots.

    Any profile that is its own reverse and below the dots is dominated: being convex in e^loss, it is below the chords.

    Args:
        losses: ascending, from at least 0 (k,).
        values: of the profile there, rounded up (k,); the last one is 0.
    """
    return _pair(*_lower_hull(losses, values))


def _corners(profile: Profile, largest_loss: float) -> tuple[Array, Array]:
    """Points (epsilon, h) between which connecting the dots is as good as h, from epsilon 0 to the largest loss."""
    x = np.linspace(0.0, largest_loss, max(_FIRST, math.ceil(largest_loss / _WIDEST)))[:-1]
    h, tail = profile(x, np.zeros(len(x)))
    x, h, tail = (np.append(known, last) for known, last in ((x, largest_loss), (h, 0.0), (tail, 0.0)))
    settled = np.zeros(len(x) - 1, dtype=bool)
    while len(i := np.flatnonzero(~settled)) and len(x) < _MOST_POINTS:
        # In units of e^x[i]: the tangents h[i] - tail[i] u and h[i+1] + slope (width - u) meet at u.
        width, scale = np.expm1(x[i + 1] - x[i]), np.exp(x[i] - x[i + 1])
        slope = tail[i + 1] * scale
        with np.errstate(divide="ignore", invalid="ignore"):
            u = (h[i] - h[i + 1] - slope * width) / (tail[i] - slope)
        u = np.where(np.isfinite(u), np.clip(u, 0.0, width), 0.0)
        low = np.maximum(np.maximum(h[i] - tail[i] * u, h[i + 1] + slope * (width - u)), 0.0)
        chord = h[i] + (h[i + 1] - h[i]) * (u / width)
        between = x[i] + np.log1p(u)
        close = _CLOSEST * largest_loss
        split = (chord - low > _ACCURACY * low) & (between > x[i] + close) & (between < x[i + 1] - close)
        settled[i[~split]] = True
        i, between, low = i[split], between[split], low[split]
        found, new_tail = profile(between, low)
        # A corner: the tangents are the function on both sides.
        corner = np.isnan(new_tail)
        settled[i] = corner
        x, h, tail = (np.insert(old, i + 1, new) for old, new in ((x, between), (h, found), (tail, new_tail)))
        settled = np.insert(settled, i + 1, corner)
    return x, h


def _lower_hull(losses: Array, values: Array) -> tuple[Array, Array]:
    """Losses at the corners (k,) and log Q[L >= loss], the descent that ends in each of them (k,).

    Rounding may leave a point above its neighbours' chord; the hull of points on or above h is still above h. The first
    corner's neighbour is its own mirror image at 1/g, from which the slope is (1 - h) / (1 + g).
    """
    kept: list[int] = []
    slopes: list[float] = []
    for i, (loss, value) in enumerate(zip(losses.tolist(), values.tolist(), strict=True)):
        if kept and value >= values[kept[-1]]:
            continue
        while True:
            if not kept:
                slope = (math.log1p(-value) if value < 1 else -math.inf) - np.logaddexp(0.0, loss)
                break
            last = kept[-1]
            # log(e^loss - e^last), which may be beyond exponentials.
            run = loss + math.log(-math.expm1(losses[last] - loss))
            slope = math.log(values[last] - value) - run
            if slope < slopes[-1]:
                break
            kept.pop()
            slopes.pop()
        kept.append(i)
        slopes.append(float(slope))
    return losses[kept], np.array(slopes)


def _pair(losses: Array, log_survival: Array) -> EnvelopePair:
    """The pair that is its own reverse, from the corners at non-negative losses."""
    with np.errstate(under="ignore"):
        share = -np.expm1(np.append(np.diff(log_survival), -math.inf))
        p, q = np.exp(losses + log_survival) * share, np.exp(log_survival) * share
    if losses[0] == 0:
        losses, p, q = losses[1:], p[1:], q[1:]
    # Rounded outwards, the masses above 0 may leave less than what was below; that moves up, which is never wrong.
    rest = max(0.0, 1.0 - math.fsum(p))
    q = q * min(1.0, rest / max(math.fsum(q), _LEAST))
    # Too far below 0 for exponentials: moved up as well.
    kept = (q > 0) & (losses < LARGEST_LOSS)
    zero = max(0.0, rest - math.fsum(q[kept]))
    masses = [*q[kept][::-1].tolist(), zero, *p.tolist()]
    values = [*(-losses[kept])[::-1].tolist(), 0.0, *losses.tolist()]
    occupied = [(loss, mass) for loss, mass in zip(values, masses, strict=True) if mass > 0]
    return EnvelopePair(tuple(loss for loss, _ in occupied), tuple(mass for _, mass in occupied))
