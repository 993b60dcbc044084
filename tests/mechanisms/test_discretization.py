"""The two finite laws of every pair bracket its profile, and close in on it with the square of the cells."""

import functools
import math

import numpy as np
import pytest
from scipy.special import logsumexp

from dpkit.mechanisms import DominatingPair, GaussianPair, LaplacePair, SampledPair
from dpkit.mechanisms.discretization import (
    Bracket,
    DiscreteLoss,
    bracket,
    first_edges,
    fixed_edges,
    refined_bracket,
)
from examples import distinct_pairs

PAIRS = distinct_pairs()


def hockey_stick(law: DiscreteLoss, epsilon: float) -> float:
    above = law.losses > epsilon
    return law.infinite_mass + float(np.sum(law.probabilities[above] * -np.expm1(epsilon - law.losses[above])))


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


def edges_of(pair: DominatingPair, cells: int) -> np.ndarray:
    """Equal cells over the range of the pair, and the edges that every grid keeps."""
    low, high = reach(pair)
    kept = fixed_edges(pair)
    kept = kept[(kept >= low - 1e-9 * abs(low)) & (kept <= high + 1e-9 * abs(high))]
    return np.union1d(np.linspace(low, high, cells + 1), kept)


@functools.cache
def profile(name: str) -> list[tuple[float, float]]:
    """Epsilons and their deltas: irregular, so that only 0 and the atoms ever sit on an edge."""
    pair = PAIRS[name]
    low, high = reach(pair)
    scale = max(-low, high)
    places = np.linspace(1.02 * low, 1.02 * high, 25) + 1e-3 * scale * np.sin(np.arange(25))
    return [(e, pair.delta(e)) for e in [*places.tolist(), 0.0, *pair.atoms]]


def check(laws: Bracket, name: str) -> None:
    for law in (laws.below, laws.above):
        assert np.all(law.probabilities >= 0)
        assert np.all(np.diff(law.losses) >= 0)
        assert law.infinite_mass >= 0
        # The deficit is exact: it is what log-moments are computed from.
        assert math.fsum(law.probabilities) + law.deficit == pytest.approx(1.0, abs=1e-12)
    assert laws.above.deficit == laws.above.infinite_mass
    for epsilon, exact in profile(name):
        assert exact * (1 - 1e-11) - 1e-300 <= hockey_stick(laws.above, epsilon), epsilon
        # An atom's place is known to rounding, by which the profile may move: its slope is at most 1.
        rounding = 1e-15 * max(1.0, abs(epsilon))
        assert hockey_stick(laws.below, epsilon) <= exact * (1 + 1e-11) + rounding, epsilon


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("cells", [1, 3, 7, 100, 1500])
def test_laws_bracket_the_profile(name, cells):
    check(bracket(PAIRS[name], edges_of(PAIRS[name], cells)), name)


@pytest.mark.parametrize("name", PAIRS)
def test_laws_on_uneven_and_truncated_grids_bracket_too(name):
    pair = PAIRS[name]
    check(bracket(pair, first_edges(pair)), name)
    # Half the range cut off on either side: mass moves up to the first edge, and to infinity, or is dropped.
    low, high = reach(pair)
    check(bracket(pair, np.linspace(low / 2, high / 2, 9)), name)
    check(bracket(pair, np.sort(np.random.default_rng(1).uniform(low, high, 40))), name)


def spread(pair: DominatingPair) -> float:
    """Width of the middle nine tenths of the loss."""
    low, high = reach(pair)
    grid = np.unique(np.concatenate([np.linspace(low, high, 20_001), np.geomspace(1e-9, high, 2_000), [low]]))
    p = pair.sf(grid)[0]
    return float(grid[int(np.argmax(p < 0.05))] - grid[int(np.argmax(p < 0.95))])


def area(law: DiscreteLoss, low: float, high: float) -> float:
    """Integral of the profile from `low` to `high`, beyond which the loss is infinite or nowhere."""
    over = np.maximum(law.losses - low, 0.0)
    return float(np.sum(law.probabilities * (over + np.expm1(-over)))) + law.infinite_mass * (high - low)


@pytest.mark.parametrize("name", [name for name in PAIRS if "response" not in name])
def test_halving_the_cells_quarters_the_gap(name):
    """Atoms included: they have cells of their own."""
    pair = PAIRS[name]
    low, high = reach(pair)
    cells = max(400, math.ceil(20 * (high - low) / (spread(pair) or high - low)))
    gaps = []
    for number in (cells, 2 * cells, 4 * cells):
        laws = bracket(pair, edges_of(pair, number))
        gaps.append(area(laws.above, low, high) - area(laws.below, low, high))
    assert gaps[0] > 0
    if gaps[0] < 1e-10:
        # Nothing but atoms: such a law is held exactly, and only rounding adds up.
        assert gaps[2] < 1e-10
        return
    # The mass piled up at an end moves within its cell from grid to grid, so two halvings are judged together.
    assert gaps[0] >= 12 * gaps[2], gaps


# Pairs with a tilt, and the range that holds the law so tilted but for 1e-16.
TILTED = {
    "gaussian": (GaussianPair(1.0), 3.0, (-8.5, 12.0)),
    "sampled": (SampledPair(GaussianPair(1.0), 0.01, adding=False), 2.0, (-0.0101, 6.5)),
    "added": (SampledPair(GaussianPair(1.0), 0.01, adding=True), 20.0, (-5.0, 0.0101)),
    "laplace": (LaplacePair(0.5), 4.0, (-0.51, 0.51)),
}


@pytest.mark.parametrize("name", TILTED)
def test_refinement_meets_its_target_with_few_cells(name):
    pair, tilt, (low, high) = TILTED[name]
    edges = first_edges(pair)
    edges = edges[(edges >= low) & (edges <= high)]

    def log_moment(law: DiscreteLoss) -> float:
        return float(logsumexp(tilt * law.losses, b=law.probabilities))

    sizes = []
    for allowed in (1e-3, 1e-5):
        laws = refined_bracket(pair, edges, tilt, allowed)
        assert -1e-12 <= log_moment(laws.above) - log_moment(laws.below) <= 1.05 * allowed
        sizes.append(len(laws.edges))
    # A hundredth of the gap costs ten times the cells.
    assert sizes[1] <= 15 * sizes[0]
    assert sizes[0] <= 600
