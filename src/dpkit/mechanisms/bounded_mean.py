"""One step of private gradient descent into a fixed box: clip coordinates, add up, bound, divide by a constant."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from dpkit import validation
from dpkit.mechanisms.rectified_gaussian import RectifiedGaussian
from dpkit.mechanisms.truncated_gaussian import TruncatedGaussian

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True)
class BoundedMean:
    """Sums of records clipped in every coordinate, released by `mechanism` and divided by a fixed denominator.

    Args:
        mechanism: what makes the release and is accounted for. A `TruncatedGaussian` may state `coordinates`, as every
            coordinate of a record is bounded.
        linf_clip: each coordinate of a record is clipped to [-linf_clip, linf_clip], > 0.
        coordinates: number of coordinates of a record, >= 1.
        denominator: fixed beforehand, for instance the expected batch size; never the number of records drawn.

    Raises:
        ValueError: a number is outside its range, `mechanism` is neither of the two, or it states other coordinates.

    Guarantees: those of `mechanism`, whose unit, in which its box is given too, is the records' L2 norm bound
    `unit = linf_clip * sqrt(coordinates)`. The box bounds the noisy sum, before the division.

    References: Hu, Mahloujifar, Smith, Chaudhuri and Guo (2024).

    >>> step = BoundedMean(RectifiedGaussian(1.0, -2.0, 2.0), linf_clip=0.25, coordinates=16, denominator=8)
    >>> step.unit
    1.0
    """

    mechanism: RectifiedGaussian | TruncatedGaussian
    linf_clip: float
    coordinates: int
    denominator: float

    def __post_init__(self):
        if not isinstance(self.mechanism, RectifiedGaussian | TruncatedGaussian):
            raise ValueError(
                "mechanism must be a RectifiedGaussian or a TruncatedGaussian, which release into a box, got "
                f"{self.mechanism!r}"
            )
        for name in ("linf_clip", "denominator"):
            object.__setattr__(self, name, validation.positive(name, getattr(self, name)))
        object.__setattr__(self, "coordinates", validation.count("coordinates", self.coordinates, minimum=1))
        stated = getattr(self.mechanism, "coordinates", None)
        if stated not in (None, self.coordinates):
            raise ValueError(f"coordinates must be the mechanism's {stated}, got {self.coordinates}")

    @property
    def unit(self) -> float:
        """Largest L2 norm of a clipped record: the mechanism's unit."""
        return self.linf_clip * math.sqrt(self.coordinates)

    def privatize(self, records: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        """The noisy mean of records (n, coordinates), shaped (coordinates,). Pure and jittable. NaN counts as 0."""
        import jax.numpy as jnp

        records = jnp.asarray(records)
        if records.ndim != 2 or records.shape[1] != self.coordinates:
            raise ValueError(f"records must be shaped (n, {self.coordinates}), got {records.shape}")
        kept = jnp.where(jnp.isnan(records), 0, jnp.clip(records, -self.linf_clip, self.linf_clip))
        total = self.mechanism.privatize(kept.sum(axis=0) / self.unit, key)
        return total * (self.unit / self.denominator)
