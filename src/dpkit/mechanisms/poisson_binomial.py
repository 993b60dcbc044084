"""The Poisson binomial mechanism: numbers sent as tosses of biased coins."""

import dataclasses
import functools
import math
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

# Sums of so many coins are compared exactly.
_MOST_COINS = 4096


@dataclasses.dataclass(frozen=True)
class PoissonBinomial(Mechanism):
    """Sends a number in [-clip, clip] as the sum of `trials` coins that show 1 with probability 1/2 + theta x / clip.

    An array is sent number by number: `repeat(mechanism, d)` describes a vector of d coordinates, all of which may
    change.

    Args:
        trials: coins per number, >= 1. One report takes log2(trials + 1) bits.
        theta: bias of the coins at the largest input, in (0, 1/2); less is more private and noisier.
        clip: largest absolute input, > 0; inputs are clipped to it.
        clients: how many clients' coins are added up before anyone else sees them (secure aggregation), >= 1.

    Raises:
        ValueError: a parameter is outside its range.

    Guarantees: under `REPLACE_ONE`, a client's number becomes any other one. What the other clients hold counts as
    known and is taken at its worst. Their coins are mixtures of coins of the two extreme inputs, and every divergence
    used here is jointly quasi-convex; so the worst case over them has some number k of their coins at one extreme,
    the others at the other, and all k are compared. For each of them the laws of the sum grow in the likelihood-ratio
    order with the client's number, because sums of coins have log-concave laws, and so its worst two numbers are
    -clip and clip. The privacy loss distribution is that of the pointwise maximum of the profiles. Of more than 4096
    coins only those of as many clients as fit count, at least one: what the rest adds is post-processing of their
    sum. Nothing is claimed under `ADD_OR_REMOVE_ONE`, because a missing report shows who is absent. For exact random
    choices: those of `encode` are floating-point numbers of finite resolution.

    References: Chen, Ozgur and Kairouz (2022); Shaked and Shanthikumar (2007), Theorem 1.C.9, for the order.

    >>> from dpkit import accounting
    >>> sent = PoissonBinomial(trials=16, theta=0.25, clip=1.0, clients=40)
    >>> bounds = accounting.RdpAccountant(relation="replace_one").epsilon(sent, delta=1e-6)
    >>> round(bounds.upper, 2)
    4.01
    """

    trials: int
    theta: float
    clip: float
    clients: int = 1

    def __post_init__(self):
        object.__setattr__(self, "trials", validation.count("trials", self.trials, minimum=1))
        theta = validation.positive("theta", self.theta)
        if theta >= 0.5:
            raise ValueError(f"theta must be below 1/2, got {theta}: a coin that never shows 0 gives its client away")
        object.__setattr__(self, "theta", theta)
        object.__setattr__(self, "clip", validation.positive("clip", self.clip))
        object.__setattr__(self, "clients", validation.count("clients", self.clients, minimum=1))

    @property
    def bits(self) -> int:
        """Bits per coordinate that hold the sum of all clients' codes without wrapping around."""
        return (self.clients * self.trials).bit_length()

    def dominating_pairs(self, relation: NeighboringRelation) -> tuple[FinitePair, FinitePair]:
        self._check(relation, "dominating-pair")
        pair = (_aggregate_pair if self._others else _local_pair)(self.trials, self._others, self.theta)
        return pair, pair

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> Array:
        self._check(relation, "RDP")
        from dpkit.numerics.coins import worst_coins_renyi
        from dpkit.numerics.worst_pair import rounded_up

        orders = np.asarray(orders, dtype=np.float64)
        # Alone, a client's coins are independent releases.
        count, trials = (1, self.trials) if self._others else (self.trials, 1)
        moments = worst_coins_renyi(orders.ravel(), trials, self._others, self.theta).reshape(orders.shape)
        return rounded_up(count * moments / np.where(np.isinf(orders), 1.0, orders - 1), orders)

    def zcdp(self, relation: NeighboringRelation) -> float:
        self._check(relation, "zCDP")
        # Every epsilon-DP mechanism is epsilon tanh(epsilon/2)-zCDP, and each coin is one.
        pure = _one_coin(self.theta)
        return self.trials * pure * math.tanh(pure / 2) * (1 + 1e-12)

    @property
    def _others(self) -> int:
        """How many coins of other clients count: those of as many clients as fit."""
        return (min(self.clients, max(_MOST_COINS // self.trials, 1)) - 1) * self.trials

    def _check(self, relation: NeighboringRelation, view: str) -> None:
        if NeighboringRelation(relation) is not NeighboringRelation.REPLACE_ONE:
            raise UnsupportedViewError(self, view, "every client reports, whatever its number; use replace_one")

    def encode(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        """Codes in [0, trials], int32, shaped like `value`: what each client sends, to be added up.

        Values are clipped to [-clip, clip]; NaN counts as 0.
        """
        import jax
        import jax.numpy as jnp

        value = jnp.asarray(value)
        value = value.astype(jnp.promote_types(value.dtype, jnp.float32))
        value = jnp.where(jnp.isnan(value), 0.0, jnp.clip(value, -self.clip, self.clip))
        heads = 0.5 + self.theta * (value / self.clip)

        def toss(trial: Any, total: Any) -> Any:
            return total + jax.random.bernoulli(jax.random.fold_in(key, trial), heads)

        return jax.lax.fori_loop(0, self.trials, toss, jnp.zeros(value.shape, jnp.int32))

    def decode(self, total: ArrayLike) -> Any:
        """Unbiased estimate of the clients' mean from the sum of their codes, of any shape."""
        tosses = self.clients * self.trials
        return (self.clip / (tosses * self.theta)) * (total - tosses / 2)  # type: ignore[operator]

    def privatize(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        """One client's report as a number: what its code says about `value`, which has this mechanism's own clip."""
        import jax.numpy as jnp

        value = jnp.asarray(value)
        alone = dataclasses.replace(self, clients=1)
        return jnp.asarray(alone.decode(alone.encode(value, key)), jnp.promote_types(value.dtype, jnp.float32))


def _one_coin(theta: float) -> float:
    """The privacy loss of one coin: log((1/2 + theta) / (1/2 - theta))."""
    return math.log1p(2 * theta / (0.5 - theta))


@functools.lru_cache(maxsize=8)
def _local_pair(trials: int, others: int, theta: float) -> FinitePair:  # noqa: ARG001
    """Heavy coins against light ones, its own reverse."""
    from dpkit.numerics.coins import log_light_coins

    heads = np.arange(trials + 1)
    losses = (2 * heads - trials) * _one_coin(theta)
    p = np.exp(log_light_coins(trials, theta))[::-1]
    # Losses too far below 0 for exponentials move up to the first that is not.
    kept = (p > 0) & (losses > -690)
    first = int(np.argmax(kept))
    masses = p[kept].tolist()
    return FinitePair(tuple(losses[kept].tolist()), (masses[0] + math.fsum(p[:first]), *masses[1:]))


@functools.lru_cache(maxsize=8)
def _aggregate_pair(trials: int, others: int, theta: float) -> FinitePair:
    from dpkit.numerics.coins import worst_coins_profile, worst_coins_renyi
    from dpkit.numerics.worst_pair import rounded_up

    def profile(epsilons: Array, _: Array) -> tuple[Array, Array]:
        return worst_coins_profile(epsilons, trials, others, theta)

    largest = float(rounded_up(worst_coins_renyi(np.array([math.inf]), trials, others, theta), math.inf)[0])
    return envelope_pair(profile, largest, trials + others + 1)
