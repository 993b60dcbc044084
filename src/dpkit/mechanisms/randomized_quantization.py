"""Randomized quantization: privacy from the random choice of the levels to round to."""

import dataclasses
import functools
import itertools
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from dpkit import validation
from dpkit.mechanisms.base import Mechanism, UnsupportedViewError
from dpkit.mechanisms.envelope import envelope_pair
from dpkit.mechanisms.finite_pair import FinitePair
from dpkit.mechanisms.pair import Array
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    import jax

    from dpkit.numerics.worst_pair import Contest

# Sums of so many numbers are compared exactly; a sum over more clients counts as the largest that is within it.
_MOST_NUMBERS = 1_000_000
_LEAST_LOG_PROBABILITY = -650.0


@dataclasses.dataclass(frozen=True)
class RandomizedQuantization(Mechanism):
    """Rounds a number in [-clip, clip] at random to one of a random subset of `levels` equidistant levels.

    The levels run from -(clip + margin) to clip + margin. The two ends are always kept, each level between with
    probability `keep_probability`, by every client for every number anew; the number is rounded without bias to one of
    the two kept levels around it. An array is rounded number by number: `repeat(mechanism, d)` describes a vector of d
    coordinates, each within [-clip, clip], all of which may change.

    Args:
        levels: number of levels, >= 2. One report takes log2(levels) bits.
        keep_probability: in [0, 1); less is more private and noisier.
        margin: distance from the largest input to the outermost level, > 0.
        clip: largest absolute input, > 0; inputs are clipped to it.
        clients: how many clients' reports are added up before anyone else sees them (secure aggregation), >= 1.

    Raises:
        ValueError: a parameter is outside its range.

    Guarantees: under `REPLACE_ONE`, a client's number becomes any other one. The law of a report is continuous and
    affine in the input between two levels, and every divergence used here is jointly quasi-convex; so the worst two
    inputs are among -clip, clip and the levels between, and all ordered pairs of those are compared, exactly: the
    worst pair is not always that of the two ends. The privacy loss distribution is that of the pointwise maximum of
    their profiles, which no single pair of inputs need reach: the interval of `PldAccountant` is about that maximum,
    and the Renyi bound may be below it. For several clients what the others hold counts as known and is taken at its
    worst: again each is at one of those inputs, and the sums of all multisets of them are compared; of more clients
    than can be enumerated only a part counts, because what the rest adds is post-processing of the sum of that part.
    Nothing is claimed under `ADD_OR_REMOVE_ONE`, because a missing report shows who is absent. For exact random
    choices: those of `encode` are floating-point numbers of finite resolution.

    References: Youn, Hu, Ziani and Abernethy (2023); Zhu, Dong and Wang (2022) for the distribution.

    >>> from dpkit import accounting
    >>> report = RandomizedQuantization(levels=16, keep_probability=0.42, margin=1.0, clip=1.0)
    >>> accounting.PldAccountant(relation="replace_one").epsilon(report, delta=0.0).upper
    5.4699
    """

    levels: int
    keep_probability: float
    margin: float
    clip: float
    clients: int = 1

    def __post_init__(self):
        object.__setattr__(self, "levels", validation.count("levels", self.levels, minimum=2))
        keep = validation.probability("keep_probability", self.keep_probability)
        if keep == 1:
            raise ValueError(
                "keep_probability must be below 1, got 1.0: if every level is kept, the report shows between which two "
                "levels the number lies"
            )
        object.__setattr__(self, "keep_probability", keep)
        for name in ("margin", "clip"):
            object.__setattr__(self, name, validation.positive(name, getattr(self, name)))
        object.__setattr__(self, "clients", validation.count("clients", self.clients, minimum=1))

    @property
    def bits(self) -> int:
        """Bits per coordinate that hold the sum of all clients' codes without wrapping around."""
        return (self.clients * (self.levels - 1)).bit_length()

    def pmf(self, value: float) -> Array:
        """Probabilities of the codes 0, ..., levels - 1 of one client whose number is `value` (levels,).

        Raises:
            ValueError: `value` is outside [-clip, clip].
        """
        from dpkit.numerics import quantization

        value = validation.real("value", value)
        if abs(value) > self.clip:
            raise ValueError(f"value must be within [-clip, clip], got {value} at clip={self.clip}; clip it first")
        laws = quantization.level_log_pmf(self.levels, self.keep_probability)
        spacing = 2 * (Fraction(self.clip) + Fraction(self.margin)) / (self.levels - 1)
        return np.exp(quantization.log_pmf(laws, Fraction(value) / spacing))

    def dominating_pairs(self, relation: NeighboringRelation) -> tuple[FinitePair, FinitePair]:
        self._check(relation, "dominating-pair")
        pair = _pair(*self._key)
        return pair, pair

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> Array:
        from dpkit.numerics.worst_pair import rounded_up, worst_renyi

        self._check(relation, "RDP")
        return rounded_up(worst_renyi(_contests(*self._key), orders), orders)

    def zcdp(self, relation: NeighboringRelation) -> float:
        # Every epsilon-DP mechanism is epsilon tanh(epsilon/2)-zCDP (randomized response is the worst).
        pure = float(self.rdp(math.inf, relation))
        return pure * math.tanh(pure / 2)

    @property
    def _key(self) -> tuple[int, float, Fraction, int]:
        """All that privacy depends on; levels that are never kept are none."""
        levels = self.levels if self.keep_probability else 2
        reach = Fraction(levels - 1, 2) / (1 + Fraction(self.margin) / Fraction(self.clip))
        return levels, self.keep_probability, reach, self.clients

    def _check(self, relation: NeighboringRelation, view: str) -> None:
        if NeighboringRelation(relation) is not NeighboringRelation.REPLACE_ONE:
            raise UnsupportedViewError(self, view, "every client reports, whatever its number; use replace_one")

    def encode(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        """Codes in [0, levels), int32, shaped like `value`: what each client sends, to be added up.

        Values are clipped to [-clip, clip]; NaN counts as 0.
        """
        import jax
        import jax.numpy as jnp

        value = jnp.asarray(value)
        value = value.astype(jnp.promote_types(value.dtype, jnp.float32))
        value = jnp.where(jnp.isnan(value), 0.0, jnp.clip(value, -self.clip, self.clip))
        last = self.levels - 1
        place = (value / (self.clip + self.margin) + 1) * (last / 2)
        cell = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, last - 1)
        lower, upper = jnp.zeros_like(cell), jnp.full_like(cell, last)
        down, up, rounding = jax.random.split(key, 3)
        if self.keep_probability > 0:
            # How far the nearest kept levels are is geometric; the ends of the range stop it.
            skipped = [
                jax.random.geometric(k, self.keep_probability, value.shape, dtype=jnp.int32) - 1 for k in (down, up)
            ]
            # Differences, because a sum with a large draw could overflow.
            lower = cell - jnp.minimum(skipped[0], cell)
            upper = cell + 1 + jnp.minimum(skipped[1], last - 1 - cell)
        share = (place - lower) / (upper - lower)
        return jnp.where(jax.random.uniform(rounding, value.shape, value.dtype) < share, upper, lower)

    def decode(self, total: ArrayLike) -> Any:
        """Unbiased estimate of the clients' mean from the sum of their codes, of any shape."""
        return (2 * (self.clip + self.margin) / (self.clients * (self.levels - 1))) * total - (self.clip + self.margin)  # type: ignore[operator]

    def privatize(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        """One client's report as a number: what its code says about `value`, which has this mechanism's own clip."""
        import jax.numpy as jnp

        value = jnp.asarray(value)
        alone = dataclasses.replace(self, clients=1)
        return jnp.asarray(alone.decode(alone.encode(value, key)), jnp.promote_types(value.dtype, jnp.float32))


@functools.lru_cache(maxsize=8)
def _contests(levels: int, keep_probability: float, reach: Fraction, clients: int) -> "tuple[Contest, ...]":
    """The laws to compare: one contest for every multiset of the other clients' inputs that counts."""
    from dpkit.numerics import quantization
    from dpkit.numerics.worst_pair import Contest

    laws = quantization.level_log_pmf(levels, keep_probability)
    inputs = quantization.vertices(levels, reach)
    middle = quantization.log_pmf(laws, Fraction(0))
    ratios = quantization.log_ratios_to_middle(laws, inputs)
    # Codes counted from the other end turn every pair into its mirror image: the first input may be taken positive.
    upper = len(inputs) // 2
    others = min(clients - 1, _others_within(len(inputs), levels, float(np.min(middle + ratios))))
    if not others:
        return (Contest.between(middle, ratios[upper:], ratios),)
    own = np.exp(middle + ratios)
    difference = np.exp(middle) * np.expm1(ratios)
    contests = []
    for chosen in itertools.combinations_with_replacement(range(len(inputs)), others):
        rest = functools.reduce(np.convolve, own[list(chosen)])
        reference = np.convolve(np.exp(middle), rest)
        relative = np.log1p(np.array([np.convolve(row, rest) for row in difference]) / reference)
        contests.append(Contest.between(np.log(reference), relative[upper:], relative))
    return tuple(contests)


def _others_within(inputs: int, levels: int, least_log_probability: float) -> int:
    """How many other clients can be enumerated, and the probabilities of the sum held as numbers."""
    others = 0
    while (
        math.comb(inputs + others, others + 1) * inputs * ((others + 2) * levels) <= _MOST_NUMBERS
        and (others + 2) * least_log_probability > _LEAST_LOG_PROBABILITY
    ):
        others += 1
    return others


@functools.lru_cache(maxsize=8)
def _pair(levels: int, keep_probability: float, reach: Fraction, clients: int) -> FinitePair:
    from dpkit.numerics.worst_pair import rounded_up, worst_profile, worst_renyi

    contests = _contests(levels, keep_probability, reach, clients)
    largest = float(rounded_up(worst_renyi(contests, math.inf), math.inf))
    return envelope_pair(functools.partial(worst_profile, contests), largest, len(contests[0].log_reference))
