"""The Monte Carlo accountant: confidence bounds on delta from draws of the privacy loss."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np

from dpkit import validation
from dpkit.accounting.base import Bounds, PrivacyAccountant
from dpkit.accounting.confidence import choose_bet, mean_bound
from dpkit.accounting.pld import PldAccountant
from dpkit.mechanisms.base import Mechanism, UnsupportedViewError
from dpkit.mechanisms.loss_proposal import LossProposal, SampledLoss
from dpkit.mechanisms.pair import Array

_MOST_PILOT = 2**16
_BATCH = 2**18
_LEAST_SAMPLES = 1_000
_ROUNDS = 4
# Exponents that stay far from the ends of the float64 range.
_LARGEST_EXPONENT = 600.0
_PILOT, _CERTIFY = 0, 1
# The epsilons that are tried: where the pilot's estimate of delta is so many times the target, and, for when the draws
# are too few for that, so far on the way from its own epsilon to the unamplified one.
_LEVELS = np.array([0.1, 0.2, 0.35, 0.5, 0.6, 0.7, 0.78, 0.84, 0.88, 0.91, 0.935, 0.955, 0.97, 0.98, 0.99])
_ON_THE_WAY = 2.0 ** -np.arange(1, 9)
# Losses carry errors of some units in the last place of numbers up to a few hundred.
_LOSS_ROUNDING, _ROUNDING = 1e-11, 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonteCarloAccountant(PrivacyAccountant):
    """Bounds delta by drawing privacy losses, for mechanisms whose privacy has no formula (`BallsInBins`).

    delta = E[(1 - exp(epsilon - L))_+] in the worse direction, L the privacy loss. The losses are drawn by importance
    sampling, such that all terms stay below a known number not much larger than delta, and their mean is bounded from
    both sides by betting (`dpkit.accounting.confidence`). Memory does not grow with the samples.

    Args:
        relation: when two data sets are neighbours.
        samples: draws per direction and question, >= 1,000. An eighth of them, 65,536 at most, choose the bets, and
            for `epsilon` the values to try; no bound is made of those.
        failure_probability: probability, over the draws, that not both of the returned bounds hold, in (0, 1).
        seed: of the draws, >= 0; it may be public. The guarantee is about a seed that was fixed before any result was
            seen: to try several and keep the best voids it. None: a hash of the settings and the question, so that
            nobody chooses it and the same question has the same answer anywhere.

    Guarantees: `lower <= truth <= upper` with probability >= 1 - failure_probability over the seed, for an ideal random
    generator; half of the probability is for `upper`, half for `lower`. It is stated beside the bounds and not added to
    delta, so quote both. A search over many mechanisms, such as `calibrate`, asks many questions: that any answer is
    wrong has at most their number times the probability. `upper` is never above that of the mechanism's worst case,
    which needs no draws.

    For `epsilon`, values fixed by the pilot are tested with fresh draws from the largest down, and the last before the
    first that fails is returned; since delta falls with epsilon, the error of the whole sequence is that of one
    test, at the largest value below truth. If not even the first passes, `upper` is that of the worst case.

    References: Maurer, Hothorn and Lehmacher (1995) for testing in a fixed sequence; Wang et al. (2023), "A Randomized
    Approach for Tight Privacy Accounting", for verifying a guarantee by Monte Carlo.

    >>> from dpkit import accounting, factorization as fz
    >>> run = accounting.amplified.balls_in_bins(fz.Identity(), iterations=100, num_bins=10, noise_multiplier=2.0)
    >>> bounds = MonteCarloAccountant(samples=50_000, failure_probability=1e-6, seed=7).delta(run, epsilon=1.0)
    >>> bounds.lower < 0.0707 < bounds.upper < 0.074
    True
    """

    samples: int
    failure_probability: float
    seed: int | None = None

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "samples", validation.count("samples", self.samples, minimum=_LEAST_SAMPLES))
        failure_probability = validation.probability("failure_probability", self.failure_probability)
        if not 1e-100 <= failure_probability < 1:
            raise ValueError(f"failure_probability must be in [1e-100, 1), got {failure_probability}")
        if self.seed is not None:
            object.__setattr__(self, "seed", validation.count("seed", self.seed))

    @property
    def _pilot(self) -> int:
        return min(self.samples // 8, _MOST_PILOT)

    @property
    def _draws(self) -> int:
        return self.samples - self._pilot

    def _delta(self, mechanism: Mechanism, epsilon: float) -> Bounds:
        part = self._part(mechanism)
        if part is None:
            return Bounds(0.0, 0.0)
        seed = self._seed(f"epsilon={epsilon!r}")
        above, below = self._certified(part.loss_proposals(self.relation, epsilon), [epsilon], [epsilon], seed)  # type: ignore[arg-type]
        worst = PldAccountant(self.relation).delta(part.worst_case, epsilon=epsilon).upper
        upper = min(float(above[0]), worst, 1.0)
        return Bounds(min(float(below[0]), upper), upper, note=self._note(seed))

    def _epsilon(self, mechanism: Mechanism, delta: float) -> Bounds:
        part = self._part(mechanism)
        if part is None:
            return Bounds(0.0, 0.0)
        seed = self._seed(f"delta={delta!r}")
        worst = PldAccountant(self.relation).epsilon(part.worst_case, delta=delta).upper
        if worst == 0 or worst > _LARGEST_EXPONENT:
            return Bounds(0.0, worst, note="upper is the unamplified bound; nothing was drawn")
        epsilon, curves = worst, []
        for round_ in range(_ROUNDS):
            curves = [
                _Curve(*_draw(proposal, self._pilot, _generator(seed, _PILOT, round_, side)))
                for side, proposal in enumerate(part.loss_proposals(self.relation, epsilon))  # type: ignore[arg-type]
            ]
            epsilon = _crossings(curves, np.array([delta]), worst)[0]
        proposals = part.loss_proposals(self.relation, epsilon)  # type: ignore[arg-type]
        far = (epsilon + (worst - epsilon) * _ON_THE_WAY).tolist()
        tried = sorted({*_crossings(curves, delta * _LEVELS, worst), *far}, reverse=True)
        refuted = sorted(set(_crossings(curves, delta / _LEVELS, worst)))
        above, below = self._certified(proposals, tried, refuted, seed)
        upper, lower, note = worst, 0.0, f"{self._note(seed)}; upper is the unamplified bound, because no test passed"
        for candidate, bound in zip(tried, above, strict=True):
            if bound > delta:
                break
            upper, note = candidate, self._note(seed)
        for candidate, bound in zip(refuted, below, strict=True):
            if bound <= delta:
                break
            lower = candidate
        return Bounds(min(lower, upper), upper, note=note)

    def _certified(
        self, proposals: Sequence[LossProposal], uppers: Sequence[float], lowers: Sequence[float], seed: int
    ) -> tuple[Array, Array]:
        """Bounds on delta above at the epsilons `uppers` and below at `lowers`, each by itself at its confidence.

        Above, only the direction that delta comes from has to be covered, so the bounds share no probability; below,
        both have to be.
        """
        above, below = np.zeros(len(uppers)), np.zeros(len(lowers))
        for side, proposal in enumerate(proposals):
            pilot = _draw(proposal, self._pilot, _generator(seed, _PILOT, _ROUNDS, side))
            questions = [(epsilon, True) for epsilon in uppers] + [(epsilon, False) for epsilon in lowers]
            bets = [self._bet(proposal, pilot, *question) for question in questions]
            totals = self._totals(proposal, questions, bets, _generator(seed, _CERTIFY, 0, side))
            found = [self._bound(proposal, *row) for row in zip(questions, bets, totals, strict=True)]
            above = np.maximum(above, found[: len(uppers)])
            below = np.maximum(below, found[len(uppers) :])
        return above, below

    def _totals(
        self,
        proposal: LossProposal,
        questions: Sequence[tuple[float, bool]],
        bets: Sequence[float],
        generator: np.random.Generator,
    ) -> list[float]:
        """The sums of log(1 - bet X) that the bounds are made of."""
        totals = [0.0] * len(questions)
        lowest = min((epsilon for (epsilon, _), bet in zip(questions, bets, strict=True) if bet), default=None)
        if lowest is None:
            return totals
        for count in _batches(proposal, self._draws):
            losses, log_weights = proposal.sample(generator, count)
            kept = losses > lowest
            weights = np.exp(log_weights[kept])
            rest = weights * np.exp(lowest - losses[kept])
            for i, ((epsilon, _), bet) in enumerate(zip(questions, bets, strict=True)):
                if bet:
                    terms = np.maximum(weights - math.exp(epsilon - lowest) * rest, 0.0)
                    totals[i] += float(np.sum(np.log1p(-bet * terms)))
        return totals

    def _bet(self, proposal: LossProposal, pilot: tuple[Array, Array], epsilon: float, above: bool) -> float:
        """0 where the range by itself says enough."""
        largest = proposal.largest_term(epsilon) * (1 + _ROUNDING)
        if not 1e-280 < largest < math.inf:
            return 0.0
        beta = self._share(above)
        return choose_bet(_terms(*pilot, epsilon), len(pilot[0]), largest, self._draws, beta, above=above)

    def _bound(self, proposal: LossProposal, question: tuple[float, bool], bet: float, total: float) -> float:
        """`mean_bound` and the range, rounded outwards."""
        epsilon, above = question
        largest = proposal.largest_term(epsilon) * (1 + _ROUNDING)
        if not bet:
            return largest if above else 0.0
        bound = mean_bound(total, self._draws, bet, self._share(above))
        slack = _LOSS_ROUNDING * proposal.largest_weight(epsilon) + _ROUNDING * abs(bound)
        return min(bound + slack, largest) if above else max(bound - slack, 0.0)

    def _share(self, above: bool) -> float:
        return self.failure_probability / (2 if above else 4)

    def _part(self, mechanism: Mechanism) -> SampledLoss | None:
        """The one part of the run; None where there is none."""
        parts = list(mechanism.parts())
        if not parts:
            return None
        part, count = parts[0]
        if not any(isinstance(part, SampledLoss) for part, _ in parts):
            raise UnsupportedViewError(part, "Monte Carlo", "its privacy has formulas", ("pld", "rdp", "zcdp"))
        if not isinstance(part, SampledLoss) or count > 1 or len(parts) > 1:
            raise UnsupportedViewError(mechanism, "Monte Carlo", "compositions are not accounted for, only single runs")
        return part

    def _seed(self, question: str) -> int:
        if self.seed is not None:
            return self.seed
        words = f"dpkit {self.relation} {self.samples} {self.failure_probability!r} {question}"
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")

    def _note(self, seed: int) -> str:
        return (
            f"Monte Carlo with {self.samples:,} samples per direction, seed {seed}: these bounds are wrong with "
            f"probability at most {self.failure_probability:g}, which comes on top of delta"
        )


class _Curve:
    """The estimate of one direction's delta as a function of epsilon, from draws in memory."""

    def __init__(self, losses: Array, log_weights: Array):
        order = np.argsort(losses)[np.count_nonzero(losses <= 0) :]
        # A weight that is cut is that of a loss far below the one the proposal was made for.
        weights = np.exp(np.minimum(log_weights[order], _LARGEST_EXPONENT))
        self.count, self.losses = len(losses), losses[order]
        self.masses = np.append(np.cumsum(weights[::-1])[::-1], 0.0)
        self.others = np.append(np.cumsum((weights * np.exp(-self.losses))[::-1])[::-1], 0.0)

    def __call__(self, epsilons: Array) -> Array:
        first = np.searchsorted(self.losses, epsilons, side="right")
        return (self.masses[first] - np.exp(epsilons) * self.others[first]) / self.count


def _crossings(curves: Sequence[_Curve], deltas: Array, largest: float) -> list[float]:
    """The epsilons in [0, largest] at which the estimates fall to each of `deltas`."""
    low, high = np.zeros(len(deltas)), np.full(len(deltas), largest)
    for _ in range(32):
        middle = (low + high) / 2
        too_low = np.maximum(*(curve(middle) for curve in curves)) > deltas
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    # A bracket that never moved from 0 is one whose delta is reached even there.
    return np.where(low > 0, high, 0.0).tolist()


def _terms(losses: Array, log_weights: Array, epsilon: float) -> Array:
    """The terms w (1 - exp(epsilon - L)) that are not 0."""
    above = losses > epsilon
    return np.exp(log_weights[above]) * -np.expm1(epsilon - losses[above])


def _batches(proposal: LossProposal, count: int) -> Iterator[int]:
    """Sizes that add up to `count`, each so small that its random numbers take little memory."""
    size = max(1, _BATCH // proposal.width)
    return (min(size, count - start) for start in range(0, count, size))


def _draw(proposal: LossProposal, count: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """All of `count` draws, in memory."""
    batches = [proposal.sample(generator, size) for size in _batches(proposal, count)]
    return np.concatenate([losses for losses, _ in batches]), np.concatenate([weights for _, weights in batches])


def _generator(seed: int, *stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=stream)))
