"""Poisson sampling of any mechanism that has a dominating pair."""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike

from dpkit import validation
from dpkit.mechanisms.base import Mechanism, UnsupportedViewError
from dpkit.mechanisms.composition import Composed, check_mechanism
from dpkit.mechanisms.discretization import bracket, fixed_edges
from dpkit.mechanisms.finite_pair import IDENTICAL, FinitePair
from dpkit.mechanisms.gaussian import Gaussian
from dpkit.mechanisms.mixture_of_gaussians import MixtureOfGaussians
from dpkit.mechanisms.pair import Array, DominatingPair, SampledPair
from dpkit.mechanisms.replaced_sample import ReplacedSampleBound, ReplacedSamplePair
from dpkit.mechanisms.sampled_renyi import SampledRenyi
from dpkit.numerics.gaussian_mixture import mixture_renyi, replaced_sample_renyi
from dpkit.relations import NeighboringRelation

# Cells of the finite law from which the Renyi divergences of a sampled bounded loss are bounded.
_RENYI_CELLS = 8192
_ROUNDING = 2 * _RENYI_CELLS * 2.0**-53


@dataclasses.dataclass(frozen=True)
class PoissonSampled(Mechanism):
    """`mechanism` run on a sample that holds each unit independently with probability `sampling_probability`.

    Args:
        mechanism: one elementary mechanism (sample each part of a composition by itself).
        sampling_probability: in [0, 1]; 1 is no sampling, 0 releases nothing about anyone.

    Raises:
        ValueError: the probability is outside [0, 1], or `mechanism` is a composition.

    Guarantees: the dominating pairs are exact when the base's are (Zhu, Dong and Wang 2022, Theorem 11), under
    `ADD_OR_REMOVE_ONE` and `REPLACE_SPECIAL`. Only for sampling that is independent for every unit and fresh for every
    release: not for shuffling, fixed-size batches or batches drawn in a fixed order. Which units were drawn must stay
    hidden. Under `REPLACE_ONE` the Gaussian mechanism has an exact pair of its own (`ReplacedSamplePair`); nothing is
    proved for the others, which refuse.

    >>> step = PoissonSampled(Gaussian(1.0), sampling_probability=0.01)
    >>> round(float(step.rdp([2.0], NeighboringRelation.ADD_OR_REMOVE_ONE)[0]), 9)
    0.000171813
    """

    mechanism: Mechanism
    sampling_probability: float

    def __post_init__(self):
        check_mechanism(self.mechanism)
        if isinstance(self.mechanism, Composed):
            raise ValueError(
                "mechanism must be elementary, got a composition; sample each part and compose the results"
            )
        object.__setattr__(
            self, "sampling_probability", validation.probability("sampling_probability", self.sampling_probability)
        )

    def _trivial(self, relation: NeighboringRelation, view: str) -> bool:
        """Whether sampling changes nothing (q = 1); raises where nothing is proved."""
        if self.sampling_probability == 1:
            return True
        if self._replaces(relation) and not isinstance(self.mechanism, Gaussian):
            raise UnsupportedViewError(
                self,
                view,
                "Poisson sampling under replace_one is proved for the Gaussian mechanism only, and it is not "
                "add-or-remove with twice the sensitivity; use add_or_remove_one or replace_special",
            )
        return False

    def _replaces(self, relation: NeighboringRelation) -> bool:
        return NeighboringRelation(relation) is NeighboringRelation.REPLACE_ONE

    def dominating_pairs(self, relation: NeighboringRelation) -> tuple[DominatingPair, DominatingPair]:
        unchanged = self._trivial(relation, "dominating-pair")
        present, absent = self.mechanism.dominating_pairs(relation)
        if unchanged:
            return present, absent
        q = self.sampling_probability
        if q == 0:
            return IDENTICAL, IDENTICAL
        if self._replaces(relation):
            # Without noise the two units' outcomes are apart whenever they are drawn.
            kind = ReplacedSamplePair if present.attained else ReplacedSampleBound
            pair = kind(1 / self._sigma, q) if self._sigma else FinitePair((0.0,), (1 - q,), q)
            return pair, pair
        return SampledPair(present, q, adding=False), SampledPair(absent, q, adding=True)

    @property
    def _sigma(self) -> float:
        assert isinstance(self.mechanism, Gaussian)
        return self.mechanism.noise_multiplier

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> Array:
        if self._trivial(relation, "RDP"):
            return self.mechanism.rdp(orders, relation)
        orders = np.asarray(orders, dtype=np.float64)
        q = self.sampling_probability
        if q == 0:
            return np.zeros(orders.shape)
        if isinstance(self.mechanism, Gaussian):
            if self._sigma == 0:
                return np.full(orders.shape, math.inf)
            if self._replaces(relation):
                return replaced_sample_renyi(orders, 1 / self._sigma, q)
            # Removing is the worse direction at every order (Mironov, Talwar and Zhang 2019, Theorem 5).
            return mixture_renyi(orders, self._sigma, [0.0, 1.0], [1 - q, q], reverse=False)
        if isinstance(self.mechanism, SampledRenyi):
            # Sampling never hurts (joint quasi-convexity), but a bound on what it does might.
            return np.minimum(self.mechanism.sampled_rdp(orders, q, relation), self.mechanism.rdp(orders, relation))
        return np.maximum(*(bounded_renyi(self, orders, pair) for pair in self.dominating_pairs(relation)))

    def zcdp(self, relation: NeighboringRelation) -> float:
        # Sampling never hurts (joint quasi-convexity), and for Gaussians no smaller rho holds at every order.
        if self.sampling_probability == 0:
            return 0.0
        self._trivial(relation, "zCDP")
        return self.mechanism.zcdp(relation)

    def grouped(self, size: int) -> Mechanism:
        if not isinstance(self.mechanism, Gaussian) or not self.mechanism.noise_multiplier:
            return super().grouped(size)
        if size > 1000:
            raise UnsupportedViewError(self, "group", f"the binomial weights of {size} units exceed float64")
        q, members = self.sampling_probability, np.arange(size + 1)
        weights = [math.comb(size, j) * q**j * (1 - q) ** (size - j) for j in range(size + 1)]
        if 0 < q < 1:
            # A weight that underflows is rounded up: more mass on a larger sensitivity is never less revealing.
            weights = [max(weight, 5e-324) for weight in weights]
        return MixtureOfGaussians(self.mechanism.noise_multiplier, tuple(members.tolist()), tuple(weights))


def bounded_renyi(mechanism: Mechanism, orders: Array, pair: DominatingPair) -> Array:
    """Renyi divergences of a bounded loss, from a finite law that dominates it: above truth by O(cell^2)."""
    low, high = pair.loss_range
    if pair.infinite_mass:
        return np.full(orders.shape, math.inf)
    if not (math.isfinite(low) and math.isfinite(high) and high < 700):
        raise UnsupportedViewError(mechanism, "RDP", "its privacy loss is unbounded", ("pld",))
    if high == low:
        return np.zeros(orders.shape)
    law = bracket(pair, np.union1d(np.linspace(low, high, _RENYI_CELLS + 1), fixed_edges(pair))).above
    if law.infinite_mass:
        return np.full(orders.shape, math.inf)
    powers = np.where(np.isinf(orders), 1.0, orders - 1)[:, None]
    kept = law.probabilities > 0
    values, probabilities = law.losses[kept], law.probabilities[kept]
    # Term by term E[e^((a-1) L)] - 1 keeps the digits of a tiny divergence; a large one is scaled by its largest term.
    with np.errstate(over="ignore", invalid="ignore"):
        growth = np.expm1(powers * values)
        small = np.log1p(growth @ probabilities + _ROUNDING * (np.abs(growth) @ probabilities))
    top = values[-1]
    large = np.log(np.exp(powers * (values - top)) @ probabilities) + powers[:, 0] * top + _ROUNDING
    moments = np.where(powers[:, 0] * high < 1, small, large) / powers[:, 0]
    return np.where(np.isinf(orders), high, np.clip(moments, 0.0, high))
