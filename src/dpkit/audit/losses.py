"""Audits by exact draws from the privacy losses of a run's worst case."""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from dpkit.accounting.base import as_mechanism
from dpkit.accounting.direction import Direction
from dpkit.audit.rates import GAUSSIAN, Method, audit_threshold, best_threshold, checked_trials
from dpkit.audit.result import AuditResult
from dpkit.mechanisms import (
    DominatingPair,
    FinitePair,
    FixedSizePair,
    GaussianPair,
    LaplacePair,
    Mechanism,
    SampledPair,
)
from dpkit.mechanisms.lattice_pair import LatticePair
from dpkit.mechanisms.mixture_of_gaussians import MixturePair
from dpkit.mechanisms.replaced_sample import ReplacedSamplePair
from dpkit.numerics.gaussian_mixture import log_likelihood_ratio
from dpkit.relations import NeighboringRelation

Array = NDArray[np.float64]

# Numbers drawn at a time; halvings that find a quantile, and losses beyond which there is none.
_BLOCK, _HALVINGS, _FAR = 2**20, 100, 1e300
_ATTAINED = "some data set has the run's dominating pairs as its laws, as their proofs say"
_ONLY_A_BOUND = (
    "the run's dominating pair is what it releases; here it is only known to be no less, so that the bound tests the "
    "accountant and says nothing about the run"
)


def audit_losses(
    mechanism: Mechanism,
    relation: NeighboringRelation | str = NeighboringRelation.ADD_OR_REMOVE_ONE,
    *,
    delta: float,
    trials: int = 10_000,
    confidence: float = 0.95,
    method: Method = "threshold",
    seed: int = 0,
) -> AuditResult:
    """A lower bound on the epsilon of a whole run, from draws of its privacy loss in the worst case.

    The attacker knows both laws and thresholds the log-likelihood ratio, which no other attack beats. Each step's loss
    is drawn from the very laws of its dominating pair, by chance where it is sampled, and the steps are added up: no
    grid, no transform and no bound is involved. So this tests the composition that an accountant computes. It does not
    run the mechanism's code: `audit_release` does.

    Args:
        mechanism: the whole run; its parts need dominating pairs.
        relation: when two data sets are neighbours.
        delta: in [0, 1]; above 0 for "gdp".
        trials: simulated runs with the unit, and as many without, >= 4; half of them choose direction and threshold.
        confidence: of the bound, in (0, 1).
        method: "threshold" or "gdp", as in `audit_counts`.
        seed: of the simulation. It need not be secret: no data are involved. Another one gives another bound; do not
            quote the largest of several.

    Raises:
        ValueError: an argument is out of range.
        UnsupportedViewError: a part has no dominating pair under `relation`.

    Guarantees: those of `audit_counts`.

    >>> from dpkit import accounting, mechanisms
    >>> step = mechanisms.PoissonSampled(mechanisms.Gaussian(0.7), sampling_probability=0.1)
    >>> run = mechanisms.repeat(step, 20)
    >>> found = audit_losses(run, delta=1e-2)
    >>> 1.0 < found.epsilon_lower < accounting.PldAccountant().epsilon(run, delta=1e-2).upper
    True
    """
    relation = NeighboringRelation(relation)
    pairs = [(part.dominating_pairs(relation), count) for part, count in as_mechanism(mechanism).parts()]
    directions = {Direction.merge([(both[side], count) for both, count in pairs]): None for side in (0, 1)}
    pilot, rest = checked_trials(trials)
    rng = np.random.default_rng(seed)
    tried = []
    for direction in directions:
        present, absent = (total_losses(direction, rng, pilot, present=side) for side in (True, False))
        tried.append((*best_threshold(present, absent, delta, confidence, method), direction))
    threshold, _, direction = max(tried, key=lambda found: found[1])
    present, absent = (total_losses(direction, rng, rest, present=side) for side in (True, False))
    found = audit_threshold(threshold, present, absent, delta, confidence, method)
    attained = all(pair.attained for both, _ in pairs for pair in both)
    assumption = (GAUSSIAN if method == "gdp" else "") + (_ATTAINED if attained else _ONLY_A_BOUND)
    return dataclasses.replace(found, method=f"privacy losses, {found.method}", assumption=assumption)


def total_losses(direction: Direction, rng: np.random.Generator, size: int, *, present: bool) -> Array:
    """Independent draws (size,) of a run's privacy loss in one direction, under its first law or its second."""
    total = np.zeros(size)
    if direction.mu:
        total += losses(GaussianPair(direction.mu), rng, size, present=present)
    for dominating, count in direction.parts:
        pair = _attained_half(dominating)
        if _is_atomic(pair):
            total += _atomic_losses(pair, rng, size, count, present=present)
            continue
        block = max(1, _BLOCK // size)
        for first in range(0, count, block):
            steps = min(block, count - first)
            total += losses(pair, rng, steps * size, present=present).reshape(steps, size).sum(axis=0)
    return total


@functools.singledispatch
def losses(pair: DominatingPair, rng: np.random.Generator, size: int, *, present: bool) -> Array:
    """Independent draws (size,) of the privacy loss, under the pair's first law or under its second.

    For any pair: the quantile of a uniform number, found by halving where the survival function crosses it.
    """
    side, chance = (0 if present else 1), rng.random(size)
    least, most = (float(pair.sf(end)[side]) for end in (_FAR, -_FAR))
    reach, inside = 1.0, chance[(chance >= least) & (chance < most)]
    while np.any(inside < pair.sf(reach)[side]) or np.any(inside >= pair.sf(-reach)[side]):
        reach *= 2
    low, high = np.full(size, -reach), np.full(size, reach)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = pair.sf(middle)[side] > chance
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(chance < least, np.inf, np.where(chance >= most, -np.inf, high))


@losses.register
def _(pair: GaussianPair, rng: np.random.Generator, size: int, *, present: bool) -> Array:
    centre = pair.mu**2 / 2
    return rng.normal(centre if present else -centre, pair.mu, size)


@losses.register
def _(pair: LaplacePair, rng: np.random.Generator, size: int, *, present: bool) -> Array:
    outcome = rng.laplace(pair.pure if present else 0.0, 1.0, size)
    # Beyond the two centres the loss is an atom, which rounding must not smear: that would tell the two laws apart.
    return 2 * np.clip(outcome, 0.0, pair.pure) - pair.pure


@losses.register
def _(pair: SampledPair, rng: np.random.Generator, size: int, *, present: bool) -> Array:
    q, sign = pair.sampling_probability, (-1.0 if pair.adding else 1.0)
    # Of the base, the law without the unit is the second one if the unit is removed, the first one if it is added.
    base = losses(pair.base, rng, size, present=pair.adding)
    if present != pair.adding:
        drawn = rng.random(size) < q
        base[drawn] = losses(pair.base, rng, int(drawn.sum()), present=not pair.adding)
    return sign * np.logaddexp(np.log1p(-q), np.log(q) + sign * base)


@losses.register
def _(pair: ReplacedSamplePair, rng: np.random.Generator, size: int, *, present: bool) -> Array:
    q, mu = pair.sampling_probability, pair.mu
    outcome = rng.normal(size=size) + (mu if present else -mu) * (rng.random(size) < q)
    still, drawn = np.log1p(-q), np.log(q) - mu**2 / 2
    return np.logaddexp(still, drawn + mu * outcome) - np.logaddexp(still, drawn - mu * outcome)


@losses.register
def _(pair: MixturePair, rng: np.random.Generator, size: int, *, present: bool) -> Array:
    outcome = rng.normal(size=size)
    if present != pair.adding:
        outcome += rng.choice(pair.locations, size, p=np.array(pair.weights) / np.sum(pair.weights))
    ratio = log_likelihood_ratio(outcome, np.array(pair.locations), np.log(pair.weights))
    return -ratio if pair.adding else ratio


def _attained_half(pair: DominatingPair) -> DominatingPair:
    """For a sample of fixed size what a sum attains if all others' records are that of the world without."""
    return SampledPair(pair.base, pair.ratio, adding=False) if isinstance(pair, FixedSizePair) else pair


def _is_atomic(pair: DominatingPair) -> bool:
    """Whether `atoms` are all finite losses that there are."""
    if isinstance(pair, SampledPair):
        return _is_atomic(pair.base)
    return isinstance(pair, FinitePair | LatticePair) and bool(pair.atoms)


def _atomic_losses(pair: DominatingPair, rng: np.random.Generator, size: int, count: int, *, present: bool) -> Array:
    """The sum of `count` losses: how often each value came up is multinomial."""
    atoms = np.array(pair.atoms)
    # Between the atoms, because rounding may put an atom on either side of itself.
    between = np.concatenate([[-np.inf], (atoms[1:] + atoms[:-1]) / 2, [atoms[-1] + 1]])
    above = pair.sf(between)[0 if present else 1]
    # Under the first law what is left is infinite, under the second what there was before any atom is minus infinity.
    masses = np.append(-np.diff(above), above[-1] if present else 1 - above[0])
    masses = np.maximum(masses, 0.0)
    times = rng.multinomial(count, masses / masses.sum(), size)
    total = np.asarray(times[:, :-1] @ atoms, dtype=np.float64)
    total[times[:, -1] > 0] = np.inf if present else -np.inf
    return total
