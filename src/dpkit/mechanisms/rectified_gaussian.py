"""The Gaussian mechanism whose output is clipped to a fixed box."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from dpkit.mechanisms.bounded_output import BoundedOutput
from dpkit.mechanisms.gaussian import Gaussian, GaussianBound
from dpkit.mechanisms.pair import Array, DominatingPair
from dpkit.numerics.bounded_gaussian import rectified_hockey_stick, rectified_renyi
from dpkit.numerics.restricted_normal import restricted_normal
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True)
class RectifiedGaussian(BoundedOutput, Gaussian):
    """Adds N(0, noise_multiplier^2) to every coordinate and clips the result to [lower, upper].

    In the worst case it gains nothing over the Gaussian mechanism: where the privacy loss crosses epsilon inside the
    box, the hockey-stick divergence is the Gaussian's exactly. What it hides it hides about records whose coordinates
    lie near or beyond the box: see `per_instance_rdp`, which is no DP guarantee.

    Args:
        noise_multiplier: standard deviation over the L2 norm bound of one unit's contribution, > 0.
        lower: low end of the box, in units of that bound; fixed whatever the data.
        upper: high end of the box, likewise.
        bounded: what the box bounds; only "output". Bounding the noise instead is refused with the reason.

    Raises:
        ValueError: a number is not finite, `noise_multiplier` is not positive, the box is empty, or `bounded` is
            "noise".

    Guarantees: every view is that of `Gaussian`, exactly, also Poisson-sampled, for clipping is post-processing. A box
    chosen from the data voids all of them, unless its choice has a budget of its own. The release is biased. For
    real-valued noise: a floating-point sampler is not covered (Mironov 2012).

    References: Hu, Mahloujifar, Smith, Chaudhuri and Guo (2024) for the divergences and the Fisher information.

    >>> release = RectifiedGaussian(noise_multiplier=2.0, lower=-1.0, upper=1.0)
    >>> release.rdp([2.0], "add_or_remove_one")
    array([0.25])
    >>> release.renyi_divergence([2.0], 1.0, 0.0)
    array([0.185])
    """

    lower: float
    upper: float
    bounded: dataclasses.InitVar[str] = "output"

    def __post_init__(self, bounded: str):
        self._check_box(bounded)

    def dominating_pairs(self, relation: NeighboringRelation) -> tuple[DominatingPair, DominatingPair]:
        # No two values have the Gaussian's own laws; those that tell as much at one epsilon tell less at others.
        pair = GaussianBound(self._mu(relation))
        return pair, pair

    def grouped(self, size: int) -> "RectifiedGaussian":
        return RectifiedGaussian(self.noise_multiplier / size, self.lower / size, self.upper / size)

    def _renyi(self, orders: Array, position: float, shift: float, width: float) -> Array:
        return rectified_renyi(orders, position, shift, width)

    def _hockey_stick(self, epsilon: float, position: float, shift: float, width: float) -> float:
        return rectified_hockey_stick(epsilon, position, shift, width)

    def _fisher(self, low: Array, width: float) -> Array:
        # The score is x inside the box, and at an end the inverse Mills ratio of its probability.
        inside = restricted_normal(low, width)
        square = np.exp(inside.log_mass) * (inside.variance + (low + inside.from_low) ** 2)
        ends = np.stack([-low, low + width])
        density = np.exp(-(ends**2) / 2) / np.sqrt(2 * np.pi)
        mills = np.sqrt(np.pi / 2) * special.erfcx(ends / np.sqrt(2))
        return square + (density / mills).sum(axis=0)

    def _bounded_noise_delta(self) -> float:
        # Each end's probability sits on a point that moves with the value.
        return sum(self._tails())

    def privatize(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        import jax.numpy as jnp

        return jnp.clip(super().privatize(value, key), self.lower, self.upper)
