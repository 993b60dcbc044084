"""The distributed discrete Gaussian mechanism."""

import dataclasses
import math
import warnings
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpkit import validation
from dpkit.mechanisms import exact_samplers
from dpkit.mechanisms.discrete_gaussian import discrete_gaussian_noise
from dpkit.mechanisms.integer_noise import Change, IntegerNoise
from dpkit.mechanisms.pair import Array
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    import jax

_OUTWARD = 1 + 1e-12
# Terms of the product for the oscillation; what is left out is bounded.
_FACTORS = 200
# Above this the shares are too coarse to pass for one discrete Gaussian.
_COARSE = 0.1


@dataclasses.dataclass(frozen=True)
class DistributedDiscreteGaussian(IntegerNoise):
    """A sum of integer vectors to which each of `num_shares` clients has added its own discrete Gaussian noise.

    Only the sum may be seen (secure aggregation; a modulus is post-processing). Clients that drop out take their noise
    with them: `num_shares` is how many stayed, and hostile clients do not count either.

    Args:
        local_sigma: scale of each client's noise, > 0; small values make `tau` useless.
        num_shares: clients whose noise is in the sum, >= 1.
        l2_sensitivity: largest L2 norm of one unit's integer vector, > 0, rounding included
            (`dpkit.mechanisms.rounding`).
        dimension: number of coordinates, >= 1.

    Raises:
        ValueError: a parameter is outside its range.

    Warns:
        UserWarning: tau * dimension exceeds 0.1.

    Guarantees: with v = num_shares * local_sigma^2, u2 = D2 / sqrt(v), u1 = D1 / sqrt(v) and N coordinates that move,

        D_a <= min( a u2^2 / 2 + N tau,  (a/2) (u2^2 + 2 u1 tau + N tau^2) ),

    for every real a > 1. Proof for one coordinate, which moves by D, u = D / sqrt(v). Let h = log(F/G), F the law of
    the noise and G the discrete Gaussian law with scale sqrt(v). Adding the (k+1)-st share to a discrete Gaussian of
    scale s sqrt(k) multiplies the discrete Gaussian of the sum by a theta function whose logarithm oscillates by
    log(theta_3 / theta_4)(q_k), q_k = exp(-2 pi^2 s^2 k / (k+1)), and adding noise cannot widen an oscillation: h
    oscillates by at most `tau`, the sum of those. The loss is L = L_G + b, L_G that of G moved by D and |b| <= tau.
    F is subgaussian with v, so that E[e^(s L_G)] <= exp(s u^2/2 + s^2 u^2/2) under the moved F, which with b <= tau
    is the first bound. Hoelder's inequality with exponents (u + tau)/u and (u + tau)/tau, and Hoeffding's lemma
    for b, give D_a <= KL + (a-1) (u + tau)^2 / 2. And KL = u^2/2 + E[b] <= u^2/2 + tau sqrt(KL/2), by Pinsker's
    inequality, so that KL <= (u + tau)^2 / 2: the second bound, whose sum over the coordinates is as stated.

    No dominating pair is known. `release_exactly` draws from exactly this law; `privatize` does not.

    References: Kairouz, Liu and Steinke (2021), whose tau is 10 * sum of q_k, here about 4 * sum of q_k; their third
    bound, (a/2) (u2 + sqrt(d) tau)^2, is never below the second, because u1 <= sqrt(d) u2.

    >>> from dpkit import NeighboringRelation
    >>> noise = DistributedDiscreteGaussian(local_sigma=2.0, num_shares=100, l2_sensitivity=10.0, dimension=1000)
    >>> round(noise.zcdp(NeighboringRelation.ADD_OR_REMOVE_ONE), 6)
    0.125
    """

    local_sigma: float
    num_shares: int
    l2_sensitivity: float = 1.0
    dimension: int = 1

    def __post_init__(self):
        object.__setattr__(self, "local_sigma", validation.positive("local_sigma", self.local_sigma))
        object.__setattr__(self, "num_shares", validation.count("num_shares", self.num_shares, minimum=1))
        object.__setattr__(self, "dimension", validation.count("dimension", self.dimension, minimum=1))
        object.__setattr__(self, "l2_sensitivity", validation.positive("l2_sensitivity", self.l2_sensitivity))
        if self.tau * self.dimension > _COARSE:
            warnings.warn(
                f"tau * dimension = {self.tau * self.dimension:.3g}: shares of local_sigma={self.local_sigma:g} do not "
                "add up to a discrete Gaussian; scale the values up before rounding, and the noise with them",
                stacklevel=3,
            )

    @property
    def tau(self) -> float:
        """How far the logarithm of the ratio of the law to a discrete Gaussian one oscillates, at most."""
        k = np.arange(1, self.num_shares)
        q = np.exp(-2 * (math.pi * self.local_sigma) ** 2 * k / (k + 1))
        # log(theta_3 / theta_4)(q) = 4 sum over m of artanh(q^(2m-1)), from Jacobi's products.
        total, power = 0.0, q
        for _ in range(_FACTORS):
            total += math.fsum(np.arctanh(power))
            power = power * q * q
            if not power.any():
                return 4 * total * _OUTWARD
        rest = math.fsum(power / ((1 - power * power) * (1 - q * q)))
        return 4 * (total + rest) * _OUTWARD

    def zcdp(self, relation: NeighboringRelation) -> float:
        # Both bounds divided by the order are largest as it falls to 1.
        return max(float(self._renyi_bound(np.array(1.0), self._change(relation))), 5e-324)

    def _renyi_bound(self, orders: Array, change: Change) -> Array:
        sigma, tau, moving = math.sqrt(self.num_shares) * self.local_sigma, self.tau, change.coordinates
        u1, u2 = change.l1 / sigma, change.l2 / sigma
        square = u2 * u2
        first = orders * (square / 2) + moving * tau
        second = orders / 2 * (square + 2 * u1 * tau + moving * tau * tau)
        return np.minimum(first, second) * _OUTWARD

    def _law(self) -> None:
        return None

    def _noise(self, key: "jax.Array", shape: tuple[int, ...]) -> Any:
        import jax
        import jax.numpy as jnp

        def add(share: Any, noise: Any) -> Any:
            return noise + discrete_gaussian_noise(self.local_sigma, jax.random.fold_in(key, share), shape)

        return jax.lax.fori_loop(0, self.num_shares, add, jnp.zeros(shape, jnp.int32))

    def _exact_noise(self, count: int) -> NDArray:
        variance = Fraction(self.local_sigma) ** 2
        return sum(
            (exact_samplers.discrete_gaussian(variance, count) for _ in range(self.num_shares)),
            np.zeros(count, dtype=np.int64),
        )
