"""Dominating pairs: a mechanism's worst case seen through its privacy loss."""

import abc
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class DominatingPair(abc.ABC):
    """Two distributions P and Q such that no pair of neighbouring inputs is easier to tell apart.

    `L = log(dP/dQ)` is the privacy loss. Everything an accountant needs follows from how L is distributed under P and
    under Q: `H_{e^x}(P||Q) = P[L > x] - e^x Q[L > x]`.

    Contract: the survival functions are right-continuous, and every probability (and `advantage`) carries a relative
    error of a few dozen units in the last place, growing at most with `-log P[L > x]`. Accountants round outwards by
    more than that (`dpkit.mechanisms.discretization.relative_error`).

    References: Zhu, Dong and Wang (2022), Definition 7 and Proposition 8.
    """

    @abc.abstractmethod
    def sf(self, loss: ArrayLike) -> tuple[Array, Array]:
        """Survival functions `(P[L > loss], Q[L > loss])`, shaped like `loss`."""

    @abc.abstractmethod
    def advantage(self, loss: ArrayLike) -> Array:
        """`P[L > loss] - Q[L > loss]` to relative accuracy, also where the two nearly agree."""

    @abc.abstractmethod
    def delta(self, epsilon: float) -> float:
        """Hockey-stick divergence `H_{e^epsilon}(P||Q)` of one release, to relative accuracy, for any real epsilon."""

    @property
    @abc.abstractmethod
    def loss_range(self) -> tuple[float, float]:
        """Infimum and supremum of the finite values of L; either may be infinite."""

    @property
    def atoms(self) -> tuple[float, ...]:
        """Finite values that L takes with positive probability, ascending: grids give each a cell of its own."""
        return ()

    @property
    def infinite_mass(self) -> float:
        """`P[L = inf]`: the probability of outcomes that only P can produce."""
        return 0.0

    @property
    def attained(self) -> bool:
        """Whether some neighbouring inputs have these very laws; otherwise the truth may be anything below."""
        return True


class SampledPair(DominatingPair):
    """A base pair after Poisson sampling, in one direction.

    With (P, Q) dominating the base, sampling with probability q gives `((1-q)Q + qP, Q)` when the unit is removed and
    `(Q, (1-q)Q + qP)` when it is added. `base` is (P, Q) for removal and (Q, P) for addition, so an asymmetric base
    brings its own pair for each direction.

    References: Zhu, Dong and Wang (2022), Theorem 11.
    """

    def __init__(self, base: DominatingPair, sampling_probability: float, *, adding: bool):
        self.base = base
        self.sampling_probability = sampling_probability
        self.adding = adding

    @property
    def attained(self) -> bool:
        return self.base.attained

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampledPair) and (self.base, self.sampling_probability, self.adding) == (
            other.base,
            other.sampling_probability,
            other.adding,
        )

    def __hash__(self) -> int:
        return hash((self.base, self.sampling_probability, self.adding))

    def _base_loss(self, loss: ArrayLike) -> Array:
        """The base loss at which the sampled loss equals `loss`.

        Removing, log(1-q + q e^x) = loss. Adding, -log(1-q + q e^-x) = loss, where x is the loss of (Q, P).
        """
        loss = np.asarray(loss, dtype=np.float64)
        q = self.sampling_probability
        loss = -loss if self.adding else loss
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # Dividing first keeps digits when e^loss - 1 and q are small; below -log 2, q > 1/2 and 1 - q is exact.
            near = np.log1p(np.maximum(np.expm1(loss) / q, -1.0))
            far = np.log(np.maximum(np.exp(loss) - (1 - q), 0.0) / q)
            inner = np.where(loss > -math.log(2), near, far)
        return -inner if self.adding else inner

    def sf(self, loss: ArrayLike) -> tuple[Array, Array]:
        first, second = self.base.sf(self._base_loss(loss))
        q = self.sampling_probability
        if self.adding:
            return first, (1 - q) * first + q * second
        below = self._below_range(loss)
        return np.where(below, 1.0, (1 - q) * second + q * first), np.where(below, 1.0, second)

    def advantage(self, loss: ArrayLike) -> Array:
        value = self.sampling_probability * self.base.advantage(self._base_loss(loss))
        return value if self.adding else np.where(self._below_range(loss), 0.0, value)

    def _below_range(self, loss: ArrayLike) -> NDArray[np.bool_]:
        """Removing, every outcome has a loss of at least log(1 - q)."""
        return np.asarray(loss) < np.log1p(-self.sampling_probability)

    def delta(self, epsilon: float) -> float:
        q = self.sampling_probability
        if self.adding:
            scale = -math.expm1(epsilon + math.log1p(-q)) if q < 1 else 1.0
            if scale <= 0:
                return 0.0
        else:
            scale = q
            if epsilon <= (math.log1p(-q) if q < 1 else -math.inf):
                return -math.expm1(epsilon)
        return scale * self.base.delta(float(self._base_loss(epsilon)))

    @property
    def loss_range(self) -> tuple[float, float]:
        low, high = self.base.loss_range
        if self._only_second:
            low = -math.inf
        if self.adding and self.base.infinite_mass:
            high = math.inf
        return self._sampled_loss(low), self._sampled_loss(high)

    @property
    def atoms(self) -> tuple[float, ...]:
        # Outcomes that only one side of the base can produce become outcomes of finite loss.
        below = (-math.inf,) if self._only_second and not self.adding else ()
        above = (math.inf,) if self.adding and self.base.infinite_mass else ()
        return tuple(self._sampled_loss(x) for x in (*below, *self.base.atoms, *above))

    @property
    def _only_second(self) -> bool:
        """Whether the base's second law has outcomes that its first law lacks."""
        return float(self.base.sf(-math.inf)[1]) < 1 - 1e-9

    @property
    def infinite_mass(self) -> float:
        # Adding: P is the world without the unit, and wherever it puts mass the mixture does too (q < 1).
        if self.adding:
            return self.base.infinite_mass if self.sampling_probability == 1 else 0.0
        return self.sampling_probability * self.base.infinite_mass

    def _sampled_loss(self, loss: float) -> float:
        q = self.sampling_probability
        if self.adding:
            return -self._mixture_log_ratio(-loss, q)
        return self._mixture_log_ratio(loss, q)

    @staticmethod
    def _mixture_log_ratio(x: float, q: float) -> float:
        if x > 700:
            return x + math.log(q)
        argument = q * math.expm1(x)
        return math.log1p(argument) if argument > -1 else -math.inf
