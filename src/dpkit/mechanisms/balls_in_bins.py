"""Balls-in-bins sampling of a matrix mechanism: every unit keeps to one random bin of steps."""

import dataclasses
import functools
import math
from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from dpkit import validation
from dpkit.mechanisms.base import UnsupportedViewError
from dpkit.mechanisms.gaussian import Gaussian
from dpkit.mechanisms.loss_proposal import LossProposal, SampledLoss, log_largest_term
from dpkit.mechanisms.pair import Array
from dpkit.relations import NeighboringRelation

_MOST_COPIES = 200


@dataclasses.dataclass(frozen=True, eq=False)
class BallsInBins(SampledLoss):
    """A Gaussian release of C G in which every unit takes part at the steps of one bin, drawn once for the whole run.

    With b bins, the unit in bin i takes part at the steps i, i + b, i + 2 b, ..., and moves C G by at most the mode
    m_i, the sum of these columns of C. Present, the release is m_i plus noise for a uniform i; absent, it is noise.
    Only the inner products of the outcome with the modes matter, and so only those of the modes with one another.
    `dpkit.accounting.amplified.balls_in_bins` makes the value for a strategy and checks what the theorem needs of it.

    Args:
        gram: <m_i, m_j> (b, b), in units in which the standard deviation of the noise is `noise_multiplier` times the
            clip norm. Symmetric, positive semi-definite, no entry negative.
        noise_multiplier: > 0.

    Raises:
        ValueError: `gram` is not such a matrix, or `noise_multiplier` is not positive.

    Guarantees: under `ADD_OR_REMOVE_ONE` and `REPLACE_SPECIAL`, if every unit's bin is uniform, independent of all
    others and of the data, and hidden, no contributions, also such as react to past outputs, are easier to tell apart
    than the two laws above (for C lower-triangular with no negative entry). No closed form is known: only
    `MonteCarloAccountant` accounts for it.

    References: Choquette-Choo, Ganesh, Haque, Steinke and Thakurta (2025), "Near-Exact Privacy Amplification for Matrix
    Mechanisms", for the sampler and the dominating laws.

    >>> import numpy as np
    >>> from dpkit import accounting
    >>> run = BallsInBins(gram=np.diag([10.0, 10.0]), noise_multiplier=4.0)
    >>> accountant = accounting.MonteCarloAccountant(samples=20_000, failure_probability=1e-6, seed=1)
    >>> bounds = accountant.delta(run, epsilon=1.0)
    >>> 0.018 < bounds.lower < bounds.upper < 0.022
    True
    """

    gram: Array
    noise_multiplier: float

    def __post_init__(self):
        object.__setattr__(self, "noise_multiplier", validation.positive("noise_multiplier", self.noise_multiplier))
        K = np.array(self.gram, dtype=np.float64)
        if K.ndim != 2 or K.shape[0] != K.shape[1] or not K.size or not np.all(np.isfinite(K)):
            raise ValueError(f"gram must be a square matrix of finite numbers, got shape {K.shape}")
        if np.min(K) < 0 or np.max(np.diag(K)) <= 0:
            raise ValueError(
                f"gram must have no negative entry and not be 0, got entries from {np.min(K)} to {np.max(K)}; nothing "
                "is proved for modes that point away from one another"
            )
        if not np.allclose(K, K.T, rtol=1e-9, atol=1e-12 * np.max(K)):
            raise ValueError("gram must be symmetric: it holds the inner products of the modes")
        if np.linalg.eigvalsh(K)[0] < -1e-9 * np.max(K):
            raise ValueError(f"gram must be positive semi-definite, got the eigenvalue {np.linalg.eigvalsh(K)[0]}")
        K = (K + K.T) / 2
        K.setflags(write=False)
        object.__setattr__(self, "gram", K)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, BallsInBins)
            and self.noise_multiplier == other.noise_multiplier
            and np.array_equal(self.gram, other.gram)
        )

    def __hash__(self) -> int:
        return hash((self.noise_multiplier, self.gram.tobytes()))

    def __repr__(self) -> str:
        return f"BallsInBins(<{self.num_bins} bins>, noise_multiplier={self.noise_multiplier})"

    @property
    def num_bins(self) -> int:
        """b."""
        return len(self.gram)

    @functools.cached_property
    def scaled_gram(self) -> Array:
        """The inner products of the modes in units of the noise (b, b)."""
        return self.gram / self.noise_multiplier**2

    @functools.cached_property
    def noise_factor(self) -> Array:
        """F (b, b) with F F^T = scaled_gram: the modes' inner products with the noise are F times white noise."""
        values, vectors = np.linalg.eigh(self.scaled_gram)
        return vectors * np.sqrt(np.maximum(values, 0.0))

    @property
    def worst_case(self) -> Gaussian:
        """The bin made known, and the worst one: a mixture is no easier to tell apart than its components."""
        return Gaussian(self.noise_multiplier / math.sqrt(np.max(np.diag(self.gram))))

    def loss_proposals(self, relation: NeighboringRelation, epsilon: float) -> tuple[LossProposal, LossProposal]:
        if NeighboringRelation(relation) is NeighboringRelation.REPLACE_ONE:
            raise UnsupportedViewError(
                self, "Monte Carlo", "nothing is proved under replace_one; use add_or_remove_one or replace_special"
            )
        return CopiesProposal.best(self, epsilon), ShiftProposal.best(self, epsilon)

    def losses(self, noise: Array, means: Array | float) -> Array:
        """log(dP/dQ), P present, for white noise (k, b) and the expected inner products with the modes (k, b)."""
        scores = noise @ self.noise_factor.T
        scores += means
        scores -= np.diag(self.scaled_gram) / 2
        top = np.max(scores, axis=1)
        np.exp(np.subtract(scores, top[:, None], out=scores), out=scores)
        return top + np.log(np.sum(scores, axis=1) / self.num_bins)

    def dominating_pairs(self, relation: NeighboringRelation) -> NoReturn:
        self._refuse("dominating-pair", relation)

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> NoReturn:  # noqa: ARG002
        self._refuse("RDP", relation)

    def zcdp(self, relation: NeighboringRelation) -> NoReturn:
        self._refuse("zCDP", relation)

    def _refuse(self, view: str, relation: NeighboringRelation) -> NoReturn:
        raise UnsupportedViewError(self, view, f"none is known under {relation}", self.accountants)


class CopiesProposal(LossProposal):
    """Losses of the unit present against absent, with the unit in several bins at once.

    P / Q = e^L = mean_i e^(v_i), v_i = <m_i, y> - |m_i|^2 / 2 (in units of the noise). Bins s_1, ..., s_a are drawn
    one by one, each with probability proportional to e^(sum of its inner products with the modes drawn before), and y
    is the sum of their modes plus noise. With g = prod_k mean_i e^(<m_s1 + ... + m_sk, m_i>), k < a, the weight is
    w = g e^(-(a - 1) L): draws have the density Q b^-a e^(v_s1 + ... + v_sa) / g in (s, y), and summed over s
    b^-a e^(v_s1 + ... + v_sa) is e^(a L). By Hoelder's inequality g is at most the product over k of
    max_s mean_i e^(k <m_s, m_i>). One copy is plain sampling.
    """

    def __init__(self, mechanism: BallsInBins, copies: int, log_constant: float):
        self.mechanism, self.copies = mechanism, copies
        self.power, self.log_constant, self.width = float(copies - 1), log_constant, mechanism.num_bins

    @classmethod
    def best(cls, mechanism: BallsInBins, epsilon: float) -> "CopiesProposal":
        """The number of copies whose largest term is least; the range of a variable is what its bounds suffer from."""
        K, b = mechanism.scaled_gram, mechanism.num_bins
        chosen, log_constant, before = 1, 0.0, 0.0
        for copies in range(2, _MOST_COPIES):
            constant = log_constant + float(np.max(special.logsumexp((copies - 1) * K, axis=1))) - math.log(b)
            largest = constant - (copies - 1) * epsilon + log_largest_term(copies - 1)
            if largest >= before:
                break
            chosen, log_constant, before = copies, constant, largest
        return cls(mechanism, chosen, log_constant)

    def sample(self, generator: np.random.Generator, count: int) -> tuple[Array, Array]:
        K, b = self.mechanism.scaled_gram, self.mechanism.num_bins
        means, log_weights = K[generator.integers(b, size=count)], np.zeros(count)
        for _ in range(1, self.copies):
            top = np.max(means, axis=1, keepdims=True)
            cumulated = np.cumsum(np.exp(means - top), axis=1)
            log_weights += top[:, 0] + np.log(cumulated[:, -1] / b)
            drawn = generator.random((count, 1)) * cumulated[:, -1:]
            means += K[np.minimum(np.sum(cumulated <= drawn, axis=1), b - 1)]
        losses = self.mechanism.losses(generator.standard_normal((count, b)), means)
        return losses, log_weights - self.power * losses


class ShiftProposal(LossProposal):
    """Losses -L of the unit absent against present, for noise shifted by -t times the mean of the modes.

    The weight is exp(t <m, y> + t^2 |m|^2 / 2), m the mean of the modes. The arithmetic mean e^L of the e^(v_i) is at
    least their geometric mean, so that <m, y> = mean v + mean |m_i|^2 / 2 <= L + mean |m_i|^2 / 2.
    """

    def __init__(self, mechanism: BallsInBins, power: float):
        self.mechanism, self.power, self.width = mechanism, power, mechanism.num_bins
        self.log_constant = _shift_constant(mechanism, power)

    @classmethod
    def best(cls, mechanism: BallsInBins, epsilon: float) -> "ShiftProposal":
        """The shift whose largest term is least."""
        from scipy import optimize

        K = mechanism.scaled_gram
        spread, excess = float(np.mean(K)), epsilon - float(np.mean(np.diag(K))) / 2
        if not spread:
            return cls(mechanism, 0.0)
        found = optimize.minimize_scalar(
            lambda t: _shift_constant(mechanism, t) - t * epsilon + log_largest_term(t),
            bounds=(0.0, 1 + (max(excess, 0.0) + 1) / spread),
            method="bounded",
        )
        return cls(mechanism, float(found.x))

    def sample(self, generator: np.random.Generator, count: int) -> tuple[Array, Array]:
        K = self.mechanism.scaled_gram
        noise = generator.standard_normal((count, self.width))
        shift = -self.power * np.mean(K, axis=1)
        inner = noise @ np.mean(self.mechanism.noise_factor, axis=0) + np.mean(shift)
        return -self.mechanism.losses(noise, shift), self.power * inner + self.power**2 * np.mean(K) / 2


def _shift_constant(mechanism: BallsInBins, power: float) -> float:
    K = mechanism.scaled_gram
    return power * float(np.mean(np.diag(K))) / 2 + power**2 * float(np.mean(K)) / 2
