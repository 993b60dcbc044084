"""The two lattice laws of every pair bracket its profile, and close in on it with the square of the step."""

import functools
import math

import numpy as np
import pytest

from dpkit.mechanisms import DominatingPair, discretization
from dpkit.mechanisms.discretization import LatticeLoss, lower_lattice, upper_lattice
from examples import distinct_pairs

PAIRS = distinct_pairs()


def hockey_stick(lattice: LatticeLoss, epsilon: float) -> float:
    values, p = lattice.values, lattice.probabilities
    above = values > epsilon
    return lattice.infinite_mass + float(np.sum(p[above] * -np.expm1(epsilon - values[above])))


def reach(pair: DominatingPair) -> tuple[float, float]:
    """A range that holds the loss but for a probability below 1e-18 on either side."""
    low, high = pair.loss_range

    def cut(sign: int, end: float) -> float:
        if math.isfinite(end):
            return end
        grid = sign * np.geomspace(1e-6, 4000, 4000)
        p = pair.sf(grid)[0]
        gone = p < 1e-18 if sign > 0 else 1 - p < 1e-15
        return float(grid[int(np.argmax(gone))])

    return cut(-1, low), cut(1, high)


@functools.cache
def profile(name: str) -> list[tuple[float, float]]:
    """Epsilons and their deltas: irregular, so that only 0 and the atoms ever sit on a lattice point."""
    pair = PAIRS[name]
    low, high = reach(pair)
    scale = max(-low, high)
    places = np.linspace(0.9 * low, 0.99 * high, 25) + 1e-3 * scale * np.sin(np.arange(25))
    return [(e, pair.delta(e)) for e in [*places.tolist(), 0.0, *pair.atoms]]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("cells", [7, 100, 1500])
def test_lattices_bracket_the_profile(name, cells):
    pair = PAIRS[name]
    low, high = reach(pair)
    step = (high - low) / cells
    offset = 0.37 * step if cells == 100 else 0.0
    lower = lower_lattice(pair, step, low, high, offset=offset, tilt=1.0)
    upper = upper_lattice(pair, step, low, high, offset=offset)
    for lattice in (lower, upper):
        assert np.all(lattice.probabilities >= 0)
        assert lattice.infinite_mass >= 0
    assert math.fsum(upper.probabilities) + upper.infinite_mass == pytest.approx(1.0, abs=1e-12)
    assert math.fsum(lower.probabilities) + lower.infinite_mass <= 1 + 1e-12
    for epsilon, exact in profile(name):
        # Values are stated up to `value_error`; the profile's slope in epsilon is at most e^epsilon Q <= 1.
        assert hockey_stick(upper, epsilon) >= exact * (1 - 1e-12) - upper.value_error - 1e-300, epsilon
        assert hockey_stick(lower, epsilon) <= exact * (1 + 1e-12) + lower.value_error + 1e-300, epsilon


def spread(pair: DominatingPair) -> float:
    """Width of the middle nine tenths of the loss."""
    low, high = reach(pair)
    grid = np.unique(np.concatenate([np.linspace(low, high, 20_001), np.geomspace(1e-9, high, 2_000), [low]]))
    p = pair.sf(grid)[0]
    return float(grid[int(np.argmax(p < 0.05))] - grid[int(np.argmax(p < 0.95))])


def area(lattice: LatticeLoss, low: float, high: float) -> float:
    """Integral of the profile from `low` to `high`, beyond which the loss is infinite or nowhere."""
    over = np.maximum(lattice.values - low, 0.0)
    return float(np.sum(lattice.probabilities * (over + np.expm1(-over)))) + lattice.infinite_mass * (high - low)


@pytest.mark.parametrize("name", [name for name, pair in PAIRS.items() if not pair.atoms])
def test_halving_the_step_quarters_the_gap(name):
    pair = PAIRS[name]
    low, high = reach(pair)
    first = min((high - low) / 400, spread(pair) / 20)
    gaps = []
    for step in (first, first / 2, first / 4):
        lower, upper = lower_lattice(pair, step, low, high, tilt=1.0), upper_lattice(pair, step, low, high)
        gaps.append(area(upper, low, high) - area(lower, low, high))
    assert gaps[0] > 0
    # Two halvings together: where mass piles up below a ceiling, how the lattice meets it makes a single one uneven.
    assert max(gaps[:2]) >= 9 * gaps[2], gaps


@pytest.mark.parametrize("name", [name for name, pair in PAIRS.items() if pair.atoms])
def test_mass_piled_up_off_the_lattice_costs_less_than_a_step(name):
    pair = PAIRS[name]
    low, high = reach(pair)
    for cells in (100, 400, 1600):
        step = (high - low) / cells
        lower, upper = lower_lattice(pair, step, low, high, tilt=1.0), upper_lattice(pair, step, low, high)
        assert 0 < area(upper, low, high) - area(lower, low, high) <= step * (high - low)
        for epsilon, exact in profile(name):
            assert hockey_stick(upper, epsilon) - exact <= step
            assert exact - hockey_stick(lower, epsilon) <= step


def test_cells_stay_above_the_point_they_may_fall_to():
    """The step-down of an unliftable cell is sound only within these limits, whatever the pair."""
    assert -1 / 2 - discretization._PLACEMENTS * discretization._EDGE_MOVE > -1 + discretization._HIGHEST_SHIFT


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("share", [0.03, 0.2, 0.7])
@pytest.mark.parametrize("tilt", [0.0, 1.0, 30.0])
def test_coarse_laws_bracket_too(name, share, tilt):
    """Steps far too large for accuracy: cells that cannot be lifted, piles and isolated atoms all occur."""
    pair = PAIRS[name]
    low, high = reach(pair)
    step = share * (high - low)
    for offset in (0.0, 0.37 * step):
        lower, upper = lower_lattice(pair, step, low, high, offset, tilt), upper_lattice(pair, step, low, high, offset)
        for epsilon in np.linspace(low - step, high + step, 29):
            exact = pair.delta(float(epsilon))
            assert hockey_stick(lower, epsilon) <= exact * (1 + 1e-9) + 1e-15
            assert exact <= hockey_stick(upper, epsilon) * (1 + 1e-9) + 1e-15
