"""Samples of a fixed size, drawn without replacement."""

import dataclasses
import functools
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from dpkit import validation
from dpkit.mechanisms.base import Mechanism, UnsupportedViewError
from dpkit.mechanisms.composition import check_mechanism
from dpkit.mechanisms.gaussian import GaussianPair
from dpkit.mechanisms.pair import Array, DominatingPair, SampledPair
from dpkit.mechanisms.sampling import bounded_renyi
from dpkit.numerics.fixed_size_gaussian import fixed_size_gaussian_renyi
from dpkit.numerics.logspace import log_sum_exp
from dpkit.relations import NeighboringRelation

# The bound from Renyi divergences alone sums over all integers up to the order; beyond this it is not tried.
_HIGHEST_ORDER = 256


class FixedSizePair(DominatingPair):
    """The pair of a base that is its own reverse, after drawing a share `ratio` of all units without replacement.

    Its profile is H_{e^x}((1-w)Q + wP || Q) for x >= 0 and H_{e^x}(P || (1-w)P + wQ) below.

    Let one record of the data change, and let A be the law of the release given that it is not drawn (the same in both
    worlds), B and B' given that it is, so that the release has the laws (1-w)A + wB and (1-w)A + wB'. For a' >= 1 and
    a' = 1 + w(a-1), b = a'/a (Balle, Barthe and Gaboardi 2018, Theorem 2),

        H_a'((1-w)A + wB || (1-w)A + wB') = w H_a(B || (1-b)A + bB') <= w [(1-b) H_a(B || A) + b H_a(B || B')].

    B and B' differ in one record of the sample. So do B and A sample by sample, when the record is exchanged for one
    that was not drawn, uniformly at random: a sample of either kind is hit uniformly. Hence both are at most H_a(P||Q),
    and w H_a(P||Q) = H_a'((1-w)Q + wP || Q). Exchanging the worlds says the same for a' < 1 (Zhu, Dong and Wang 2022,
    for the same result). Where the base is its own reverse the profile is convex, hence that of a pair.
    """

    def __init__(self, base: DominatingPair, ratio: float):
        self.base = base
        self.ratio = ratio
        self._above = SampledPair(base, ratio, adding=False)
        self._below = SampledPair(base, ratio, adding=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FixedSizePair) and (self.base, self.ratio) == (other.base, other.ratio)

    def __hash__(self) -> int:
        return hash((self.base, self.ratio, "without replacement"))

    def sf(self, loss: ArrayLike) -> tuple[Array, Array]:
        loss = np.asarray(loss, dtype=np.float64)
        above, below = self._above.sf(np.maximum(loss, 0.0)), self._below.sf(np.minimum(loss, 0.0))
        return np.where(loss >= 0, above[0], below[0]), np.where(loss >= 0, above[1], below[1])

    def advantage(self, loss: ArrayLike) -> Array:
        loss = np.asarray(loss, dtype=np.float64)
        above, below = self._above.advantage(np.maximum(loss, 0.0)), self._below.advantage(np.minimum(loss, 0.0))
        return np.where(loss >= 0, above, below)

    def delta(self, epsilon: float) -> float:
        return (self._above if epsilon >= 0 else self._below).delta(epsilon)

    @property
    def loss_range(self) -> tuple[float, float]:
        return self._below.loss_range[0], self._above.loss_range[1]

    @property
    def atoms(self) -> tuple[float, ...]:
        below, above = (x for x in self._below.atoms if x < 0), (x for x in self._above.atoms if x > 0)
        return (*below, 0.0, *above)

    @property
    def infinite_mass(self) -> float:
        return self._above.infinite_mass

    @property
    def attained(self) -> bool:
        return False


@dataclasses.dataclass(frozen=True)
class FixedSizeSampled(Mechanism):
    """`mechanism` run on `batch_size` units drawn without replacement from `population` units, afresh each time.

    Args:
        mechanism: what is run on the sample; a composition (the coordinates of a vector, say) is run on one sample.
        batch_size: units in a sample, from 1 to `population`.
        population: units in the data, public.

    Raises:
        ValueError: `batch_size` is not between 1 and `population`, or one of them is no integer.

    Guarantees: under `REPLACE_ONE` only, from the base's guarantee under the same relation (which a clipped sum pays
    for with twice its sensitivity). For a base whose dominating pair is its own reverse, the pair of `FixedSizePair`
    and its Renyi divergence; for other bases the bound from the base's Renyi divergences at integer orders (Wang,
    Balle and Kasiviswanathan 2019, Theorem 9), with (order - 1) D_order convex between them; never more than without
    sampling. Which units were drawn must stay hidden, and every sample of the size must be equally likely:
    shuffling once and taking batches in turn is something else.

    References: Balle, Barthe and Gaboardi (2018); Wang, Balle and Kasiviswanathan (2019); Zhu, Dong and Wang (2022).

    >>> from dpkit.mechanisms import Gaussian
    >>> step = FixedSizeSampled(Gaussian(1.0), batch_size=100, population=10_000)
    >>> round(float(step.rdp([2.0], NeighboringRelation.REPLACE_ONE)[0]), 6)
    0.006787
    """

    mechanism: Mechanism
    batch_size: int
    population: int

    def __post_init__(self):
        check_mechanism(self.mechanism)
        object.__setattr__(self, "population", validation.count("population", self.population, minimum=1))
        object.__setattr__(self, "batch_size", validation.count("batch_size", self.batch_size, minimum=1))
        if self.batch_size > self.population:
            raise ValueError(
                f"batch_size must be at most population={self.population}, got {self.batch_size}: units are drawn "
                "without replacement"
            )

    @property
    def _ratio(self) -> float:
        return self.batch_size / self.population

    def _check(self, relation: NeighboringRelation, view: str) -> None:
        if NeighboringRelation(relation) is not NeighboringRelation.REPLACE_ONE:
            raise UnsupportedViewError(
                self, view, "a sample of fixed size is proved for populations of one size; use replace_one"
            )

    def dominating_pairs(self, relation: NeighboringRelation) -> tuple[DominatingPair, DominatingPair]:
        self._check(relation, "dominating-pair")
        parts = list(self.mechanism.parts())
        if len(parts) != 1 or parts[0][1] != 1:
            raise UnsupportedViewError(
                self, "dominating-pair", "none is known for a composition that is run on one sample", ("rdp", "zcdp")
            )
        present, absent = parts[0][0].dominating_pairs(relation)
        if self._ratio == 1:
            return present, absent
        if present != absent:
            raise UnsupportedViewError(
                self, "dominating-pair", "it is proved for a pair that is its own reverse", ("rdp", "zcdp")
            )
        pair = FixedSizePair(present, self._ratio)
        return pair, pair

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> Array:
        self._check(relation, "RDP")
        orders = np.asarray(orders, dtype=np.float64)
        # Never more than without sampling: quasi-convexity.
        base = _composed_renyi(self.mechanism, orders)
        return base if self._ratio == 1 else np.minimum(base, self._amplified(orders))

    def _amplified(self, orders: Array) -> Array:
        try:
            pair, _ = self.dominating_pairs(NeighboringRelation.REPLACE_ONE)
            assert isinstance(pair, FixedSizePair)
            if isinstance(pair.base, GaussianPair):
                return fixed_size_gaussian_renyi(orders, pair.base.mu, self._ratio)
            return bounded_renyi(self, orders.ravel(), pair).reshape(orders.shape)
        except UnsupportedViewError:
            return _integer_order_bound(self.mechanism, orders, self._ratio)

    def zcdp(self, relation: NeighboringRelation) -> float:
        # Sampling never hurts (joint quasi-convexity), and no smaller rho is proved for every order.
        self._check(relation, "zCDP")
        return math.fsum(count * part.zcdp(relation) for part, count in self.mechanism.parts())


def _composed_renyi(mechanism: Mechanism, orders: Array) -> Array:
    total = np.zeros(orders.shape)
    for part, count in mechanism.parts():
        total = total + count * part.rdp(orders, NeighboringRelation.REPLACE_ONE)
    return total


def _integer_order_bound(mechanism: Mechanism, orders: Array, ratio: float) -> Array:
    """The bound at integer orders, between them by convexity, and pure epsilon at order inf; inf beyond the highest."""
    pure = float(_composed_renyi(mechanism, np.array([math.inf]))[0])
    within = np.where(orders <= _HIGHEST_ORDER, orders, 2.0)
    # (order - 1) D_order is 0 at order 1.
    # Rounded up to a power of two, because accountants ask for ever other orders.
    moments = np.array([0.0, *_moments(mechanism, 2 ** math.ceil(math.log2(within.max(initial=2.0))), ratio)])
    divergence = np.interp(within, np.arange(1, len(moments) + 1), moments) / (within - 1)
    with np.errstate(over="ignore"):
        amplified_pure = np.log1p(ratio * np.expm1(pure))
    return np.where(np.isinf(orders), amplified_pure, np.where(orders <= _HIGHEST_ORDER, divergence, math.inf))


@functools.lru_cache(maxsize=64)
def _moments(mechanism: Mechanism, highest: int, ratio: float) -> tuple[float, ...]:
    """Bounds on (a - 1) D_a after sampling, a = 2, ..., highest."""
    j = np.arange(2, highest + 1)
    divergences = _composed_renyi(mechanism, np.append(j.astype(np.float64), math.inf))
    divergences, pure = divergences[:-1], float(divergences[-1])
    log_pure = pure + math.log(-math.expm1(-pure)) if pure else -math.inf
    with np.errstate(over="ignore", divide="ignore"):
        terms = (j - 1) * divergences + np.minimum(math.log(2), j * log_pure)
        terms[0] = min(terms[0], math.log(4) + np.log(np.expm1(divergences[0])))
    terms += j * math.log(ratio)
    result = []
    for a in j.tolist():
        log_binomials = -special.betaln(j[: a - 1] + 1, a - j[: a - 1] + 1) - math.log(a + 1)
        result.append(float(np.logaddexp(0.0, log_sum_exp(log_binomials + terms[: a - 1]))))
    return tuple(result)
