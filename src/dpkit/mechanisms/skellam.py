"""The Skellam mechanism."""

import dataclasses
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from dpkit import validation
from dpkit.mechanisms import exact_samplers
from dpkit.mechanisms.integer_noise import Change, IntegerNoise, checked_sensitivity
from dpkit.mechanisms.lattice_pair import IntegerLaw
from dpkit.mechanisms.pair import Array
from dpkit.numerics.lattice_weights import bessel_weights
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    import jax

_OUTWARD = 1 + 1e-11
# Larger rates are drawn as sums, because the sampler of `jax.random` computes in 32 bits.
_LARGEST_RATE = 500.0


@dataclasses.dataclass(frozen=True)
class SkellamLaw(IntegerLaw):
    """P(k) = e^-variance I_|k|(variance).

    Its curvature falls with |k|: I_(k-1) I_(k+1) / I_k^2 is the mean of cos 2t under the density proportional to
    I_2k(2 variance cos t) on [0, pi/2] (the integral of a product of two Bessel functions), and for larger k this
    density moves towards t = 0 in the likelihood-ratio order, because I_(k+1)(x) / I_k(x) increases in x (Amos 1974).
    """

    variance: float

    def weights(self) -> list[int]:
        return bessel_weights(Fraction(self.variance))


@dataclasses.dataclass(frozen=True)
class Skellam(IntegerNoise):
    """Adds Skellam noise, a difference of two Poisson variables of mean variance / 2, to every coordinate of sums.

    Sums of independent Skellam variables are Skellam: n clients who add noise of variance / n each make this release.
    If some drop out, account for the variance of those who stay.

    Args:
        variance: variance of the noise in each coordinate, in squared units of the integers, > 0.
        l2_sensitivity: largest L2 norm of one unit's integer vector, > 0, rounding included
            (`dpkit.mechanisms.rounding`); an integer in one dimension.
        dimension: number of coordinates, >= 1.

    Raises:
        ValueError: a parameter is outside its range.

    Guarantees: with D2 and D1 the norms by which the sum moves and kappa = 2 log(I_0/I_1)(variance) the largest
    curvature of the noise (`SkellamLaw`), about 1/variance + 1/(2 variance^2),

        D_a <= a kappa D2^2 / 2 + kappa e / (2 (a-1)),   e = min(t (1-t) D2^2, (a-1) D1, number of coordinates / 4),

    for every real a > 1, t the fractional part of a. Proof, for one coordinate, which moves by D: g(k) =
    -log f(k) - kappa k^2 / 2 is concave, so with z = y - a D and if z is an integer
    a log f(y - D) + (1-a) log f(y) <= log f(z) + kappa a (a-1) D^2 / 2, and sums over y of f(z) are at most 1. So
    e = 0 for integers a D. The logarithm of the moment is convex in a, and between neighbouring such a its chord
    exceeds the parabola by kappa u (1-u) / 2, u the fractional part of a D; u (1-u) is at most 1/4, (a-1) D and
    t (1-t) D^2. At integer orders also the bound a D2^2 / (2 variance) + 3 D1 / (2 variance) of the reference, with
    chords between. In one dimension the divergences are exact where float64 resolves them, and so is the dominating
    pair. rho is what the bound above implies: up to twice the truth where the sum moves by a single 1.
    `release_exactly` draws from exactly this law; `privatize` does not.

    References: Agarwal, Kairouz and Liu (2021), whose first bound is above this one.

    >>> from dpkit import accounting
    >>> counts = Skellam(variance=4.0)
    >>> round(accounting.PldAccountant().epsilon(counts, delta=1e-6).upper, 4)
    1.642
    """

    variance: float
    l2_sensitivity: float = 1.0
    dimension: int = 1

    def __post_init__(self):
        variance = validation.positive("variance", self.variance)
        if variance < 1e-9:
            raise ValueError(f"variance must be at least 1e-9, got {variance}: such noise hides nothing")
        object.__setattr__(self, "variance", variance)
        object.__setattr__(self, "dimension", validation.count("dimension", self.dimension, minimum=1))
        sensitivity = validation.positive("l2_sensitivity", self.l2_sensitivity)
        object.__setattr__(self, "l2_sensitivity", checked_sensitivity(sensitivity, self.dimension))

    def zcdp(self, relation: NeighboringRelation) -> float:
        change = self._change(relation)
        return largest_curvature(self.variance) * (change.l2**2 + min(change.l1, change.l2**2)) / 2

    def _renyi_bound(self, orders: Array, change: Change) -> Array:
        square, quarter, t = change.l2**2, change.coordinates / 4, orders - np.floor(orders)
        # Divergences grow with the order, so a bound that falls first holds at its least value already.
        later = np.maximum(orders, 1 + math.sqrt(quarter / square))
        doubled = np.minimum(
            orders * square + np.minimum(t * (1 - t) * square / (orders - 1), change.l1),
            later * square + quarter / (later - 1),
        )
        ours = largest_curvature(self.variance) / 2 * doubled
        return np.minimum(ours, self._published(orders, change))

    def _published(self, orders: Array, change: Change) -> Array:
        """The second bound of the reference, which wins at large orders."""
        low = np.floor(orders)
        ends = [(n - 1) * (n * change.l2**2 + 3 * change.l1) / (2 * self.variance) * _OUTWARD for n in (low, low + 1)]
        return (ends[0] + (orders - low) * (ends[1] - ends[0])) / (orders - 1)

    def _law(self) -> tuple[IntegerLaw, float]:
        return SkellamLaw(self.variance), math.sqrt(self.variance)

    def _noise(self, key: "jax.Array", shape: tuple[int, ...]) -> Any:
        import jax
        import jax.numpy as jnp

        terms = math.ceil(self.variance / 2 / _LARGEST_RATE)
        rate = self.variance / 2 / terms

        def add(i: Any, noise: Any) -> Any:
            plus, minus = (
                jax.random.poisson(k, rate, shape, jnp.int32) for k in jax.random.split(jax.random.fold_in(key, i))
            )
            return noise + plus - minus

        return jax.lax.fori_loop(0, terms, add, jnp.zeros(shape, jnp.int32))

    def _exact_noise(self, count: int) -> NDArray:
        return exact_samplers.skellam(Fraction(self.variance), count)


def largest_curvature(variance: float) -> float:
    """Upper bound on kappa = 2 log(I_0(v) / I_1(v)), within 1e-11 up to 1000 and 1e-6 beyond (relative).

    Beyond, kappa < 2h, h = 1/(2v) + 1/(4v^2) + 1/(2v^3): r = I_1/I_0 satisfies r' = 1 - r/v - r^2, and l = e^-h has
    l' <= 1 - l/v - l^2 for v >= 3, because 2 sinh h >= 2h >= 1/v - h'; as l < r at 3, l < r from there on.
    """
    if variance > 1000:
        h = (0.5 + (0.25 + 0.5 / variance) / variance) / variance
        return 2 * h * (1 + 1e-14)
    zero, one = float(special.i0e(variance)), float(special.i1e(variance))
    return 2 * math.log1p((zero - one) / one) * _OUTWARD
