"""The discrete Gaussian mechanism."""

import dataclasses
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dpkit import validation
from dpkit.mechanisms import exact_samplers
from dpkit.mechanisms.integer_noise import Change, IntegerNoise, checked_sensitivity
from dpkit.mechanisms.lattice_pair import IntegerLaw
from dpkit.mechanisms.pair import Array
from dpkit.numerics.lattice_weights import gaussian_weights
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    import jax

# Rounding of the closed forms.
_OUTWARD = 1 + 1e-14


@dataclasses.dataclass(frozen=True)
class DiscreteGaussianLaw(IntegerLaw):
    """P(k) proportional to exp(-k^2 / (2 sigma^2)): of constant curvature 1/sigma^2."""

    sigma: float

    def weights(self) -> list[int]:
        return gaussian_weights(Fraction(self.sigma) ** 2)


@dataclasses.dataclass(frozen=True)
class DiscreteGaussian(IntegerNoise):
    """Adds discrete Gaussian noise, P(k) proportional to exp(-k^2 / (2 sigma^2)), to every coordinate of integer sums.

    Args:
        sigma: scale of the noise in units of the integers, > 0; its standard deviation is at most that.
        l2_sensitivity: largest L2 norm of one unit's integer vector, > 0, rounding included
            (`dpkit.mechanisms.rounding`); an integer in one dimension.
        dimension: number of coordinates, >= 1.

    Raises:
        ValueError: a parameter is outside its range.

    Guarantees: zCDP with rho = D^2 / (2 sigma^2), D the norm by which the sum moves, and Renyi divergences of at most
    rho * order, with equality where order times the shift is an integer: by completing the square, E[(P/Q)^a] is
    exp(a (a-1) D^2 / (2 sigma^2)) times a sum of exp(-(k - a D)^2 / (2 sigma^2)) over the integers, which is largest
    where a D is an integer (Poisson summation). In one dimension also the exact dominating pair; the profile is not the
    continuous Gaussian's and may lie above it. `release_exactly` draws from exactly this law; `privatize` does not.

    References: Canonne, Kamath and Steinke (2020), Theorem 4 and Theorem 7.

    >>> from dpkit import accounting
    >>> counts = DiscreteGaussian(sigma=2.0)
    >>> round(accounting.PldAccountant().epsilon(counts, delta=1e-6).upper, 4)
    2.2758
    """

    sigma: float
    l2_sensitivity: float = 1.0
    dimension: int = 1

    def __post_init__(self):
        object.__setattr__(self, "sigma", validation.positive("sigma", self.sigma))
        object.__setattr__(self, "dimension", validation.count("dimension", self.dimension, minimum=1))
        sensitivity = validation.positive("l2_sensitivity", self.l2_sensitivity)
        object.__setattr__(self, "l2_sensitivity", checked_sensitivity(sensitivity, self.dimension))

    def zcdp(self, relation: NeighboringRelation) -> float:
        return max(self._rho(self._change(relation)), 5e-324)

    def _renyi_bound(self, orders: Array, change: Change) -> Array:
        return orders * self._rho(change)

    def _rho(self, change: Change) -> float:
        ratio = change.l2 / self.sigma
        return ratio * ratio / 2 * _OUTWARD

    def _law(self) -> tuple[IntegerLaw, float]:
        return DiscreteGaussianLaw(self.sigma), self.sigma

    def _noise(self, key: "jax.Array", shape: tuple[int, ...]) -> Any:
        return discrete_gaussian_noise(self.sigma, key, shape)

    def _exact_noise(self, count: int) -> NDArray:
        return exact_samplers.discrete_gaussian(Fraction(self.sigma) ** 2, count)


def discrete_gaussian_noise(sigma: float, key: "jax.Array", shape: tuple[int, ...]) -> Any:
    """int32 noise by floating-point rejection from discrete Laplace noise; see `exact_samplers.discrete_gaussian`."""
    import jax
    import jax.numpy as jnp

    scale = int(sigma) + 1

    def attempt(state: Any) -> Any:
        key, noise, missing = state
        key, *keys = jax.random.split(key, 6)
        remainder = jax.random.randint(keys[0], shape, 0, scale, jnp.int32)
        size = remainder + scale * jnp.floor(jax.random.exponential(keys[1], shape)).astype(jnp.int32)
        negative = jax.random.bernoulli(keys[2], 0.5, shape)
        # Two chances, exp(-remainder / scale) and exp(-(size - sigma^2 / scale)^2 / (2 sigma^2)).
        exponent = remainder / scale + ((size / sigma) - sigma / scale) ** 2 / 2
        accepted = (jax.random.exponential(keys[3], shape) >= exponent) & ~(negative & (size == 0))
        noise = jnp.where(missing & accepted, jnp.where(negative, -size, size), noise)
        return key, noise, missing & ~accepted

    start = key, jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool)
    return jax.lax.while_loop(lambda state: state[2].any(), attempt, start)[1]
