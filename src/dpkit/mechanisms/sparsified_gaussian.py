"""The sparsified Gaussian mechanism: coordinates that clients keep at random, under one Gaussian noise."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from dpkit import validation
from dpkit.mechanisms.base import UnsupportedViewError
from dpkit.mechanisms.pair import Array, DominatingPair
from dpkit.mechanisms.sampled_renyi import SampledRenyi
from dpkit.numerics.exponential import exp_remainder
from dpkit.numerics.gaussian_mixture import mixture_renyi
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    import jax

_OUTWARD = 1 + 1e-11


@dataclasses.dataclass(frozen=True)
class SparsifiedGaussian(SampledRenyi):
    """A sum of vectors of which each client sends a random part, plus Gaussian noise (coordinate subsampling).

    Each client clips its vector to L2 norm 1 and its entries to `linf_clip`, keeps every coordinate independently with
    `keep_probability`, and sends those (`encode`). The release is the sum plus N(0, noise_multiplier^2) in every
    coordinate (`privatize`); divided by the number of clients and `keep_probability` it estimates the mean.

    **The masks must stay hidden from the adversary**, forever: nobody but a trusted server or secure aggregation may
    see which coordinates a client sent. If masks or single messages can be seen, nothing here holds, and the release is
    worth `Gaussian(noise_multiplier)` and no more.

    Args:
        noise_multiplier: standard deviation over the L2 clip norm, > 0.
        keep_probability: chance of each coordinate to be sent, in (0, 1].
        dimension: number of coordinates, >= 1.
        linf_clip: largest absolute entry over the L2 clip norm, in (0, 1]. The amplification is the stronger the
            smaller it is; rotate vectors at random first, so that little is clipped.

    Raises:
        ValueError: a parameter is outside its range.

    Guarantees, under `ADD_OR_REMOVE_ONE` and `REPLACE_SPECIAL`: the other clients' masks are independent and count as
    known (joint quasi-convexity), so P and Q are products over coordinates j of (1-gamma) N(0) + gamma N(x_j) and N(0).
    In each the involution x_j - y makes removing the worse direction (Mironov, Talwar and Zhang 2019, Theorem 5), so
    (a-1) D_a is at most the sum of F(x_j^2), F(t) = log E[g^a], g = 1 - gamma + gamma r, r lognormal of log-variance
    t/sigma^2. F is convex with F(0) = 0 for every real a > 1. For r is a geometric Brownian motion in t, so with
    p = gamma r / g and E' the mean weighted with g^a, F' is a (a-1) E'[p^2] / (2 sigma^2), and F'' has the sign of
    E'[2 p^2 + 4 (a-2) p^3 + (a-2) (a-3) p^4] - a (a-1) E'[p^2]^2; since 0 <= p <= 1 the bracket is at least
    a (a-1) p^4 (for a < 2 because 2 (1-p) (1 + p - 2 (2-a) p) >= 0), and E'[p^4] >= E'[p^2]^2. Under sum x_j^2 <= 1 and
    x_j^2 <= c^2 the sum of a convex F is largest with as many coordinates at c as fit and the rest of the norm in one
    more: that is the bound, and some vector attains it.

    Under Poisson sampling of clients (`PoissonSampled`), removing is a binomial sum of moments at integer orders, with
    chords between. Adding, with g = P/Q of the whole vector and u = q (g - 1) >= -q: ((1+u)^(1-a) - 1 + (a-1) u) / u^2
    falls in u, so that E[(1+u)^(1-a)] <= 1 + ((1-q)^(1-a) - 1 - (a-1) q) (E[g^2] - 1). The larger of these two or, if
    that is smaller, the sampled Gaussian's.

    Nothing is proved under `REPLACE_ONE` (there is no amplification to speak of: use `Gaussian`), about privacy loss
    distributions in several coordinates, or for masks that are used again.

    References: Chen, Isik, Kairouz, No, Oh and Xu (2024), whose mechanism this is; the proof is the one above.

    >>> from dpkit import accounting
    >>> sent = SparsifiedGaussian(noise_multiplier=0.1, keep_probability=0.01, dimension=10_000, linf_clip=0.05)
    >>> round(accounting.RdpAccountant().epsilon(sent, delta=1e-6).upper, 3)
    0.495
    """

    noise_multiplier: float
    keep_probability: float
    dimension: int
    linf_clip: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "noise_multiplier", validation.positive("noise_multiplier", self.noise_multiplier))
        object.__setattr__(self, "dimension", validation.count("dimension", self.dimension, minimum=1))
        for name in ("keep_probability", "linf_clip"):
            object.__setattr__(self, name, validation.positive(name, getattr(self, name)))
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")

    def dominating_pairs(self, relation: NeighboringRelation) -> tuple[DominatingPair, DominatingPair]:
        self._check(relation, "dominating-pair")
        return super().dominating_pairs(relation)

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> Array:
        self._check(relation, "RDP")
        orders = np.asarray(orders, dtype=np.float64)
        square = self.linf_clip**2
        full = self.dimension if self.dimension * square <= 1 else math.floor(1 / square)
        rest = max(1 - full * square, 0.0) if full < self.dimension else 0.0
        total = np.zeros(orders.size)
        for count, largest in ((full, self.linf_clip), (1, math.sqrt(rest))):
            total += count * self._sampled(orders, largest, self.keep_probability)
        return total.reshape(orders.shape)

    def zcdp(self, relation: NeighboringRelation) -> float:
        # No smaller rho holds at every order: where everything is kept decides at large ones.
        self._check(relation, "zCDP")
        return max(self._squared_norm / self.noise_multiplier / self.noise_multiplier / 2, 5e-324) * _OUTWARD

    def sampled_rdp(self, orders: Array, sampling_probability: float, relation: NeighboringRelation) -> Array:
        self._check(relation, "RDP")
        q, second = sampling_probability, float(self.rdp(np.array([2.0]), relation)[0])
        finite, v = np.where(np.isinf(orders), 2.0, orders), -math.log1p(-q)
        with np.errstate(over="ignore"):
            # (1-q)^(1-a) - 1 - (a-1) q, whose leading terms cancel.
            growth = exp_remainder((finite - 1) * v) + (finite - 1) * exp_remainder(-v)
            adding = np.log1p(growth * np.expm1(second)) / (finite - 1) * _OUTWARD
        amplified = np.maximum(self._removing(orders, q, relation), adding)
        plain = self._sampled(orders, math.sqrt(self._squared_norm), q).reshape(orders.shape)
        return np.minimum(np.where(np.isinf(orders), math.inf, amplified), plain)

    def streaming(self, encoder: ArrayLike, max_participations: int = 1) -> "SparsifiedGaussian":
        """A whole run of steps with correlated noise, as one release; see `dpkit.factorization`.

        The run releases the rows of E G + Z, row t of G being the sum of what the clients of step t send and Z
        independent noise of deviation noise_multiplier. A client that takes part once, in step t, moves it by column t
        of E times its masked vector: all of the above with 1 and `linf_clip` times the norm of that column, the
        largest of which counts. Steps may depend on earlier releases, because E is lower-triangular.

        Args:
            encoder: E, lower-triangular (n, n); C in `dpkit.factorization`'s A = (A C^-1) C.
            max_participations: how often one unit takes part.

        Raises:
            UnsupportedViewError: a unit takes part more than once: its masks multiply different rows, the coordinates'
                shifts become vectors that depend on all its masks, and no worst case of these is proved.
            ValueError: `encoder` is not a square lower-triangular matrix of finite numbers, or it is 0.

        >>> SparsifiedGaussian(1.0, 0.5, dimension=4).streaming([[1.0, 0.0], [1.0, 0.5]]).noise_multiplier
        0.7071067811865475
        """
        if validation.count("max_participations", max_participations, minimum=1) > 1:
            raise UnsupportedViewError(
                self,
                "streaming",
                f"with {max_participations} participations a unit's masks meet in every row, and no worst case is "
                "proved; let each unit take part once, or use Gaussian, which needs no masks",
            )
        matrix = np.asarray(encoder, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size or not np.isfinite(matrix).all():
            raise ValueError(f"encoder must be a square matrix of finite numbers, got shape {matrix.shape}")
        if np.triu(matrix, 1).any() or not matrix.any():
            raise ValueError("encoder must be lower-triangular and not 0: steps may depend on earlier ones only")
        largest = float(np.linalg.norm(matrix, axis=0).max())
        return dataclasses.replace(self, noise_multiplier=self.noise_multiplier / largest)

    def bits_per_client(self, bits_per_value: float = 32.0) -> float:
        """Expected size of a message: kept values, and which ones they are at their entropy.

        >>> SparsifiedGaussian(1.0, 0.5, dimension=100).bits_per_client(bits_per_value=16)
        900.0
        """
        kept, bits = self.keep_probability, validation.positive("bits_per_value", bits_per_value)
        entropy = -(kept * math.log2(kept) + (1 - kept) * math.log2(1 - kept)) if kept < 1 else 0.0
        return self.dimension * (kept * bits + entropy)

    def mean_squared_error(self, num_clients: int) -> float:
        """Largest expected squared L2 error of the estimated mean of `num_clients` vectors of norm at most 1.

        Sparsification costs (1/keep_probability - 1) / n, the noise d (noise_multiplier / (n keep_probability))^2. What
        clipping takes away from larger vectors and entries is not included.
        """
        n, kept = validation.count("num_clients", num_clients, minimum=1), self.keep_probability
        return (1 / kept - 1) / n + self.dimension * (self.noise_multiplier / (n * kept)) ** 2

    def encode(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        """What one client sends: its clipped vector with most coordinates 0, shaped like `value`. Pure and jittable.

        Args:
            value: the client's vector, `dimension` numbers in any shape, in units of the L2 clip norm.
            key: the client's own secret, used once: whoever knows it knows the mask.
        """
        import jax
        import jax.numpy as jnp

        from dpkit.mechanisms.rounding import clip_l2

        vector = clip_l2(value, 1.0, self.linf_clip)
        if vector.size != self.dimension:
            raise ValueError(f"value must have dimension={self.dimension} numbers, got shape {vector.shape}")
        return jnp.where(jax.random.bernoulli(key, self.keep_probability, vector.shape), vector, 0)

    def privatize(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        """Adds the noise to a sum of messages that `encode` made, each with a mask of its own. Pure and jittable."""
        import jax
        import jax.numpy as jnp

        value = jnp.asarray(value)
        return value + self.noise_multiplier * jax.random.normal(key, value.shape, value.dtype)

    @property
    def _squared_norm(self) -> float:
        """The largest squared norm that both clips allow."""
        return min(1.0, self.dimension * self.linf_clip**2)

    def _sampled(self, orders: Array, largest: float, probability: float) -> Array:
        """Divergences of the Gaussian of which a contribution of size `largest` is there with a probability (k,)."""
        if not largest:
            return np.zeros(orders.size)
        weights = [1 - probability, probability]
        return mixture_renyi(orders.ravel(), self.noise_multiplier / largest, [0.0, 1.0], weights, reverse=False)

    def _check(self, relation: NeighboringRelation, view: str) -> None:
        if NeighboringRelation(relation) is NeighboringRelation.REPLACE_ONE:
            raise UnsupportedViewError(
                self, view, "nothing is proved for two masked vectors; use add_or_remove_one or replace_special"
            )
